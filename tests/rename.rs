//! `container-rename`: a container is found by its new name wherever one is named, and by its id. Needs root.

mod container;
mod host;

use container::{start, until};
use host::Host;
use testkit::Sandbox;

#[test]
fn every_tool_finds_a_container_by_its_name() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    start(
        &sandbox,
        "| cgroup-limit --pids 50 | netns-bridge | veth-pair",
        "-d -- sh -c 'echo run; exec sleep 1000'",
    );
    let script = "container-events --format '{event} {oldName} {name}' > events & events=$!
        until grep -q inotify /proc/$events/fdinfo/*; do sleep 0.01; done
        container-rename web shop; until test -s events; do sleep 0.01; done; kill $events; cat events";
    assert_eq!(
        sandbox.sh(&format!("timeout 20 sh -c \"{}\"", script.replace('$', "\\$"))).ok(),
        "{\"id\":\"web\",\"name\":\"shop\",\"oldName\":\"web\"}\nrename web shop\n"
    );
    for (command, told) in [
        (
            "container-ls --format '{id} {name}' shop; container-ls --format '{{.Names}}' web",
            "web shop\nshop\n",
        ),
        ("container-exec shop echo in", "in\n"),
        ("ns-exec --join shop -- echo in", "in\n"),
        ("container-logs shop", "run\n"),
        ("container-top shop --format '{command}'", "sleep 1000\n"),
        ("container-stats shop --format '{{.ID}} {{.Name}}'", "web shop\n"),
        ("container-cp shop:/etc/hostname - | tar -xO", "web\n"),
        (
            "container-pause shop --format '{id} {name}'; container-pause --resume shop > /dev/null",
            "web shop\n",
        ),
        ("container-update --pids 40 shop --format '{name}'", "shop\n"),
        ("union-diff shop@0 web@0", ""),
        ("layer-diff --container shop --list | grep -c /etc/hostname", "0\n"),
        ("net-repair shop 2> /dev/null", "[{\"id\":\"web\",\"restored\":[],\"failed\":[]}]\n"),
        ("union-fork shop@0 --id try | unwind -q | jq -r .id", "try\n"),
        (
            "container-stop -t 0 shop --format '{name} {exitStatus}'; container-start shop > /dev/null",
            "shop 137\n",
        ),
    ] {
        let outcome = sandbox.sh(command);
        assert_eq!(outcome.stdout, told, "{command}: {}", outcome.stderr);
    }
    // Namespaces, links and names of another container.
    for (pipe, flags, told) in [
        ("", "--network container:shop -- ip -o addr show eth0 | grep -c 'inet '", "1\n"),
        ("", "--network none --pid container:shop -- sh -c 'ps | grep -c [s]leep'", "1\n"),
        (
            "| netns-bridge | veth-pair | link-hosts --link shop:store",
            "-- grep -c 'store shop web' /etc/hosts",
            "1\n",
        ),
    ] {
        let line = format!("layer-apply --id db < busybox.json | union-mount {pipe} | ns-exec {flags}");
        let outcome = sandbox.sh(&line);
        assert_eq!(outcome.stdout, told, "{line}: {}", outcome.stderr);
        sandbox.sh("unwind db > /dev/null").ok();
    }
    // The document is older than the name.
    sandbox.sh("portmap -p 8080:80 < /run/stave/web.json | portmap --undo > /dev/null").ok();
    until(&sandbox, "{name}", "shop");
    sandbox.sh("unwind --strict shop > /dev/null").ok();
    sandbox.assert_as(&before);
}

#[test]
fn a_name_is_of_one_container() {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    sandbox
        .sh("netns-add -n --id web > web.json; netns-add -n --id db > db.json; container-rename web shop")
        .ok();
    for (command, line) in [
        ("container-rename shop shop", "rename container \"web\": \"shop\" is its name already"),
        ("container-rename web db", "rename container \"web\": \"db\" is the id of container \"db\""),
        ("container-rename db web", "rename container \"db\": \"web\" is the id of container \"web\""),
        ("container-rename db shop", "rename container \"db\": \"shop\" is the name of container \"web\""),
        ("container-rename nobody x", "no container \"nobody\" in /run/stave"),
    ] {
        let refused = sandbox.sh(command).exits(1);
        assert_eq!(refused.stderr.lines().next(), Some(format!("container-rename: {line}").as_str()));
    }
    for name in ["''", "../x", "-x", "a/b"] {
        sandbox.sh(&format!("container-rename -- web {name}")).exits(2);
    }
    let taken = sandbox.sh("netns-add -n --id shop > shop.json").exits(1);
    assert!(taken.stderr.contains("shop.json\": it is the name of container \"web\""), "{}", taken.stderr);
    let back = sandbox.sh("container-rename --explain shop web").ok();
    assert_eq!(back, "rm /run/stave/shop.json\n");
    // Another name releases the first, and the id is always a name.
    sandbox.sh("container-rename shop inn && netns-add -n --id shop > shop.json && unwind -q shop").ok();
    sandbox.sh("container-rename inn web && container-rename db inn").ok();
    assert_eq!(sandbox.sh("container-ls --format '{id} {name}'").ok(), "db inn\nweb web\n");
    sandbox.sh("unwind web inn > /dev/null").ok();
    sandbox.assert_as(&before);
}

#[test]
fn stave_renames_as_docker() {
    let host = Host::new();
    let before = host.0.snapshot();
    host.stave("network create front").ok();
    host.prints(
        "run -d --name web --network front -v /data busybox sh -c 'echo x > /data/x; exec sleep 1000'",
        "web",
    );
    host.prints("run -d --name asker --network front busybox sleep 1000", "asker");
    host.prints("rename web shop", "");
    host.prints("exec asker nslookup -type=a shop | grep -c 'Name:.*shop'", "1");
    host.prints("ps --format '{{.ID}} {{.Names}}' -f name=shop", "web shop");
    host.prints("inspect -f '{{.Name}}' shop", "/shop");
    host.prints("run --rm --volumes-from shop busybox cat /data/x", "x");
    host.prints("network disconnect front shop && ./stave network connect front shop; ./stave port shop", "");
    host.fails(
        "run --name web busybox",
        125,
        "stave: \"web\" is the id of container \"shop\", which was renamed",
    );
    host.fails("run --name shop busybox", 125, "stave: there is a container \"shop\"");
    host.fails("rename shop", 2, "stave: rename takes a NAME and a NEW-NAME");
    host.prints("commit shop of-shop | cut -c 1-7", "sha256:");
    host.prints("restart -t 0 shop", "shop");
    host.prints("rm -f shop asker", "shop\nasker");
    host.stave("network rm front").ok();
    host.stave("rmi of-shop").ok();
    host.0.assert_as(&before);
}
