//! The commands of `scripts/stave` beside `run` and `exec`, as people who know Docker try them.
#![allow(clippy::unwrap_used)]

mod host;

use host::Host;
use testkit::Sandbox;

#[test]
fn logs() {
    let host = Host::new();
    let script = "for i in 1 2 3; do echo $i; done; sleep 0.5; echo 4";
    host.prints(&format!("run -d --name web busybox sh -c '{script}'"), "web");
    assert_eq!(host.stave("logs -f --tail 2 web").ok(), "2\n3\n4\n", "it ends with the container");
    host.prints("logs -n 1 web", "4");
    host.prints("logs --tail=all web", "1\n2\n3\n4");
    host.prints("logs web -f", "1\n2\n3\n4");
    host.prints("rm web", "web");
}

#[test]
fn stop_and_rm_of_several() {
    let host = Host::new();
    let before = host.0.snapshot();
    for name in ["a", "b"] {
        host.prints(&format!("run -d --name {name} busybox sleep 1000"), name);
    }
    host.prints("restart --timeout 0 a", "a");
    let line = "container-ls: no container \"nobody\" in /run/stave";
    let outcome = host.stave("stop --time=0 a nobody b").exits(1);
    let none = "container-stop: container \"nobody\" has no record \"/run/stave/nobody.json\"";
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.lines().next()), ("a\nb\n", Some(none)));
    let outcome = host.stave("rm a nobody b").exits(1);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.lines().next()), ("a\nb\n", Some(line)));
    let outcome = host.stave("rm -f nobody").exits(0);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.lines().next()), ("", Some(line)));
    host.0.assert_as(&before);
}

#[test]
fn ports_as_docker_lists_them() {
    let host = Host::new();
    host.0.sh("mkdir web && printf 'FROM busybox\\nEXPOSE 80 53/udp\\n' > web/Dockerfile").ok();
    host.stave("build -q -t web web").ok();
    host.prints("run -d --name one -p 8080:80 -p 127.0.0.1:8053:53/udp busybox sleep 1000", "one");
    host.prints("port one", "80/tcp -> 0.0.0.0:8080\n53/udp -> 127.0.0.1:8053");
    host.prints("port one 80", "0.0.0.0:8080");
    host.prints("port one 53/udp", "127.0.0.1:8053");
    host.fails("port one 53", 1, "stave: port 53/tcp of container \"one\" is not published");
    host.fails("port", 2, "stave: port takes a NAME and a PORT");
    host.prints("run -dP --name two web sleep 1000", "two");
    let ports = host.stave("port two").ok();
    let container: Vec<_> = ports.lines().filter_map(|line| line.split(" -> ").next()).collect();
    assert_eq!(container, ["53/udp", "80/tcp"], "{ports}");
    host.stave("rm -f one two").ok();
    host.prints("run --rm --publish-all=false busybox echo none", "none");
}

#[test]
fn networks_with_names() {
    let host = Host::new();
    let before = host.0.snapshot();
    host.prints("network create --subnet 10.5.0.0/24 front", "front");
    host.prints("network create --subnet 10.6.0.0/24 --internal --label name=x back", "back");
    host.prints("run -d --name db --network back --ip 10.6.0.7 busybox sleep 1000", "db");
    host.prints(
        "run -d --name web --network front --network back -p 8080:80 --link db busybox sleep 1000",
        "web",
    );
    host.prints("exec web ip -o -4 address show dev eth1 scope global | cut -d' ' -f7", "10.6.0.8/24");
    host.prints("exec web tail -n 1 /etc/hosts", "10.6.0.7\tdb");
    host.prints("exec web ip route get 192.0.2.2 | cut -d' ' -f3,5", "10.5.0.1 eth0");
    host.fails("network rm front", 1, "network-rm: network \"front\" is in use by container \"web\"");
    // A running container.
    host.prints("network connect --ip 10.5.0.9 front db", "");
    host.prints(
        "exec db ip -o -4 address show scope global | tr -s ' ' | cut -d' ' -f2,4",
        "eth0 10.6.0.7/24\neth1 10.5.0.9/24",
    );
    host.prints("network disconnect back db", "");
    host.prints(
        "exec db ip -o -4 address show scope global | tr -s ' ' | cut -d' ' -f2,4",
        "eth1 10.5.0.9/24",
    );
    host.fails("network connect none db", 1, "network-ls: no network \"none\"");
    host.fails("network connect front none", 1, "stave: no container \"none\" in /run/stave");
    host.fails("run --network none-such busybox true", 125, "network-ls: no network \"none-such\"");
    host.fails(
        "run --ip 10.5.0.9 busybox true",
        125,
        "stave: --ip, --ip6 and --mac-address need a network with a name: --network NAME",
    );
    host.prints("rm -f db web", "db\nweb");
    host.prints("network rm front back", "front\nback");
    host.0.assert_as(&before);
}

#[test]
fn a_terminal_shows_tables_and_lines() {
    let sandbox = Sandbox::with_busybox();
    sandbox.sh("netns-add -n --id web > /dev/null").ok();
    let shown = |command: &str| {
        let outcome = sandbox.sh(&format!("script -qec {command:?} /dev/null < /dev/null"));
        outcome.ok().replace('\r', "")
    };
    for (command, start) in [
        ("img-ls", "REPOSITORY   TAG       IMAGE ID"),
        ("img-ls --json", "{\n  \"images\": ["),
        ("img-history busybox", "IMAGE"),
        ("container-ls", "CONTAINER   IMAGE   COMMAND"),
        ("container-ls --json", "[\n  {\n    \"id\": \"web\""),
        ("network-ls", "NETWORK   BRIDGE"),
        ("network-create lan", "lan\n"),
        ("network-rm lan", "lan\n"),
        ("img-inspect busybox", "{\n  \"stave\": 1,"),
    ] {
        let text = shown(command);
        assert!(text.starts_with(start), "{command}: {text}");
    }
    for (command, all) in
        [("img-tag busybox other", ""), ("img-rm other", "Untagged: other:latest\n"), ("unwind web", "web\n")]
    {
        assert_eq!(shown(command), all, "{command}");
    }
    // The message says it all.
    let missing = sandbox.sh("script -qec 'img-inspect missing' /dev/null < /dev/null").exits(1);
    assert_eq!(missing.stdout.matches("missing").count(), 1, "{}", missing.stdout);
    assert!(!missing.stdout.contains("\"stave\""), "{}", missing.stdout);
}

#[test]
fn commands_of_images() {
    let host = Host::new();
    host.prints("tag busybox other:2", "");
    host.prints("images -q --no-trunc other", host.0.sh("img-ls --ids --no-trunc busybox").ok().trim_end());
    assert!(host.stave("images").ok().starts_with("REPOSITORY   TAG "));
    assert!(host.stave("history busybox").ok().starts_with("IMAGE"));
    host.prints("save -o other.tar other:2", "");
    host.prints("rmi other:2", "");
    let loaded = host.stave("load -i other.tar");
    assert_eq!((loaded.stderr.as_str(), loaded.status), ("Loaded image: other:2\n", 0));
    host.fails("imges", 2, "stave: unknown command: imges (did you mean images?)");
    host.fails("zzz", 2, "stave: unknown command: zzz");
}

/// As `docker run` does it.
#[test]
fn an_image_that_is_missing_comes_from_its_registry() {
    let host = Host::new();
    host.0.start_registry(5000, "data", serde_json::json!({}));
    host.0.sh("img-push busybox 127.0.0.1:5000/own/busybox:1 > /dev/null").ok();
    host.fails(
        "run --pull never 127.0.0.1:5000/own/busybox:1 true",
        125,
        "img-inspect: no image \"127.0.0.1:5000/own/busybox:1\" in the image store",
    );
    let pulled = host.stave("run --rm 127.0.0.1:5000/own/busybox:1 echo hi");
    assert_eq!((pulled.stdout.as_str(), pulled.status), ("hi\n", 0), "{}", pulled.stderr);
    assert!(
        pulled.stderr.contains("Status: Downloaded newer image for 127.0.0.1:5000/own/busybox:1"),
        "{}",
        pulled.stderr
    );
    let again = host.stave("run --rm --pull always 127.0.0.1:5000/own/busybox:1 echo hi");
    assert!(again.stderr.contains("Status: Image is up to date for"), "{}", again.stderr);
    let none = host.stave("run --rm 127.0.0.1:5000/none true").exits(125);
    assert!(none.stderr.contains("img-pull: "), "{}", none.stderr);
    host.fails("run --pull no busybox true", 125, "stave: --pull is always, missing or never: no");
}

#[test]
fn what_is_in_a_container_is_copied_listed_and_kept() {
    let host = Host::new();
    let before = host.0.snapshot();
    host.prints("run -d --name web --network none busybox sh -c 'echo changed > /etc/hostname2; rm /bin/vi; exec sleep 1000'", "web");
    host.0
        .sh("until test -e $STAVE_ROOT/containers/web/upper/etc/hostname2; do sleep 0.01; done; echo x > x")
        .ok();
    host.prints("cp x web:/etc/y", "");
    host.prints("exec web cat /etc/y /etc/hostname2", "x\nchanged");
    host.prints("cp web:/etc/hostname2 - | tar -x -O", "changed");
    assert_eq!(host.stave("diff web").ok(), "C /bin\nD /bin/vi\nC /etc\nA /etc/hostname2\nA /etc/y\n");
    let listed = host.stave("export web | tar -t").ok();
    assert!(listed.lines().any(|line| line == "etc/y") && !listed.contains("proc/self"), "{listed}");
    host.0.sh("touch x.tar && chmod 600 x.tar").ok();
    host.stave("export -o x.tar web").ok();
    assert_eq!(host.0.sh("stat -c %a x.tar").ok(), "600\n");
    let line = "stave: write missing/x.tar: its directory is missing";
    host.fails("export -o missing/x.tar web", 1, line);
    host.0.sh("tar -tf x.tar | grep -qx etc/y && ln -f x.tar before").ok();
    host.stave("export -o x.tar nobody").exits(1);
    host.stave("export -o x.tar").exits(2);
    host.0.sh("cmp x.tar before && test \"$(echo x.tar*)\" = x.tar").ok();
    let digest = host.stave("commit -m 'a change' web changed").ok();
    assert!(digest.starts_with("sha256:"), "{digest}");
    host.prints("run --rm --network none changed cat /etc/y", "x");
    host.prints("inspect -f '{id} {state}' web", "web running");
    host.prints("inspect web web | jq -c '[.[].id]'", "[\"web\",\"web\"]");
    host.fails("inspect -f '{{.Id}}' web", 2, "stave: --format takes no template: {id}, {state}, {ip} and other members of container-ls are replaced");
    let outcome = host.stave("inspect nobody").exits(1);
    assert_eq!(outcome.stdout, "[]\n");
    let events = host.stave("events --since 1h --until 0s -f event=start").ok();
    assert!(events.trim_end().ends_with(" container start web (image=busybox:latest)"), "{events}");
    host.prints("rm -f web", "web");
    host.0.sh("img-rm -q changed").ok();
    host.0.assert_as(&before);
}
