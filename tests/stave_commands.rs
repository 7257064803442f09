//! The commands of `scripts/stave` other than `run` and `exec`, as Docker users try them.
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
    // Flags may be anywhere.
    let outcome = host.stave("stop a nobody -t 0 b").exits(1);
    let none = "container-stop: no container \"nobody\" in /run/stave";
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.lines().next()), ("a\nb\n", Some(none)));
    let outcome = host.stave("rm a nobody b").exits(1);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.lines().next()), ("a\nb\n", Some(line)));
    let outcome = host.stave("rm -f nobody").exits(0);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.lines().next()), ("", Some(line)));
    // What cannot be read is not gone, and hides no other.
    host.prints("run -d --name c busybox sleep 1000", "c");
    host.prints("run -d --name d busybox sleep 1000", "d");
    host.0.sh("cp /run/stave/c.json kept.json && echo '{' > /run/stave/c.json").ok();
    let outcome = host.stave("ps -aq").exits(1);
    let bad = "container-ls: read record \"/run/stave/c.json\": it is not a document: EOF while parsing";
    assert!(outcome.stdout == "d\n" && outcome.stderr.starts_with(bad), "{}", outcome.stderr);
    let outcome = host.stave("rm -f c d").exits(1);
    assert!(outcome.stdout == "d\n" && outcome.stderr.starts_with(bad), "{}", outcome.stderr);
    host.0.sh("cp kept.json /run/stave/c.json").ok();
    host.prints("rm c -f", "c");
    host.prints("inspect busybox --type image -f '{{.Os}}'", "linux");
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
    host.prints("network connect --ip 10.5.0.9 --alias data front db", "");
    // An alias counts on its network only.
    for (asker, name, found) in [("web", "data", "10.5.0.9"), ("web", "db", "10.6.0.7")] {
        let answer = host.stave(&format!("exec {asker} nslookup {name}")).stdout;
        assert!(answer.contains(found), "{asker} asks for {name}: {answer}");
    }
    host.prints(
        "run -d --name two --network back --network front --network-alias only busybox sleep 1000",
        "two",
    );
    let answer =
        |name: &str| host.stave(&format!("exec web nslookup -type=a {name} | grep -c 'Address: 10'")).stdout;
    assert_eq!((answer("only").trim(), answer("two").trim()), ("1", "2"));
    host.prints("rm -f two", "two");
    host.prints(
        "exec db ip -o -4 address show scope global | tr -s ' ' | cut -d' ' -f2,4",
        "eth0 10.6.0.7/24\neth1 10.5.0.9/24",
    );
    host.prints("network disconnect back db", "");
    host.prints(
        "exec db ip -o -4 address show scope global | tr -s ' ' | cut -d' ' -f2,4",
        "eth1 10.5.0.9/24",
    );
    host.fails("network disconnect back db", 1, "stave: container \"db\" is not on network \"back\"");
    host.prints(
        "run --rm --network front --network-alias store busybox nslookup store | grep -A 1 store | grep -c 10.5.0",
        "1",
    );
    // Containers on a network with a name find each other, as with Docker.
    host.prints(
        "run --rm --network front busybox nslookup web | grep -A 1 'Name:.*web' | grep -c 10.5.0",
        "1",
    );
    host.prints(
        "run --rm --network front --dns 10.5.0.77 busybox cat /etc/resolv.conf",
        "nameserver 127.0.0.11",
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
        ("network-ls", "NETWORK   DRIVER"),
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
    // The message is enough.
    let missing = sandbox.sh("script -qec 'img-inspect missing' /dev/null < /dev/null").exits(1);
    assert_eq!(missing.stdout.matches("missing").count(), 1, "{}", missing.stdout);
    assert!(!missing.stdout.contains("\"stave\""), "{}", missing.stdout);
    let wrong = sandbox.sh("script -qec 'img-pull A' /dev/null < /dev/null").exits(2);
    assert!(
        wrong.stdout.starts_with("img-pull: ") && !wrong.stdout.contains("\"stave\""),
        "{}",
        wrong.stdout
    );
}

#[test]
fn what_is_in_a_container_is_copied_and_listed() {
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
    host.prints("rm -f web", "web");
    host.0.assert_as(&before);
}

#[test]
fn a_container_is_committed_and_inspected() {
    let host = Host::new();
    let before = host.0.snapshot();
    host.prints("run -d --name web --network none busybox sh -c 'echo x > /etc/y; exec sleep 1000'", "web");
    host.0.sh("until test -e $STAVE_ROOT/containers/web/upper/etc/y; do sleep 0.01; done").ok();
    // The image's id, and nothing else; the container is paused meanwhile, and goes on afterwards.
    let committed = host.stave("commit -m 'a change' web changed");
    assert_eq!(committed.stderr, "");
    assert_eq!(host.stave("images -q --no-trunc changed").ok(), committed.stdout);
    host.instead_of("img-commit", "container-ls --format {state} -- web >&2; exec img-commit \"$@\"");
    let paused = host.stave("commit web other");
    assert_eq!(paused.stderr, "paused\n");
    host.instead_of("img-commit", "container-ls --format {state} -- web >&2; exec img-commit \"$@\"");
    assert_eq!(host.stave("commit --pause=false web other").stderr, "running\n");
    host.prints("inspect -f '{state}' web", "running");
    // A killed client leaves nobody standing still.
    host.instead_of("img-commit", "exec sleep 3");
    host.0.sh("timeout --foreground -s KILL 1 ./stave commit web other > /dev/null 2>&1").exits(137);
    host.prints("inspect -f '{state}' web", "paused");
    host.0.sh("timeout 15 sh -c 'until [ \"$(./stave inspect -f {state} web)\" = running ]; do sleep 0.05; done'").ok();
    host.prints("run --rm --network none changed cat /etc/y", "x");
    host.prints("inspect -f '{id} {state}' web", "web running");
    host.prints("inspect web web | jq -c '[.[].id]'", "[\"web\",\"web\"]");
    host.prints(
        "inspect -f '{{.Id}} {{.Name}} {{.State.Running}} {{.Config.Image}}' web",
        "web /web true busybox:latest",
    );
    let outcome = host.stave("inspect nobody").exits(1);
    assert_eq!(outcome.stdout, "[]\n");
    assert_eq!(outcome.stderr, "stave: there is no container and no image \"nobody\"\n");
    host.prints(
        "inspect web busybox | jq -c '[.[0].id, .[1].image.reference]'",
        "[\"web\",\"busybox:latest\"]",
    );
    host.prints("ps --no-trunc --format '{id} {state}'", "web running");
    host.prints("container ls -q", "web");
    host.prints("container inspect web | jq -r '.[0].id'", "web");
    // Each group knows its own kind, whatever the names.
    assert_eq!(host.stave("image inspect web").exits(1).stdout, "[]\n");
    host.fails("image inspect -f '{{.Id}}' web", 1, "stave: there is no container and no image \"web\"");
    assert_eq!(host.stave("container inspect busybox").status, 1);
    assert_eq!(host.stave("container inspect -f '{{.Id}}' busybox").status, 1);
    host.prints("ps --format '{{.ID}}'", "web");
    let events = host.stave("events --since 1h --until 0s -f event=start").ok();
    assert!(events.trim_end().ends_with(" container start web (image=busybox:latest, name=web)"), "{events}");
    host.prints("rm -f web", "web");
    host.0.sh("img-rm -q changed").ok();
    host.0.assert_as(&before);
}

/// Commands with the formats and filters of docker, and what each prints.
const LIKE_DOCKER: &[(&str, &str)] = &[
    (
        "ps --format '{{.Names}}|{{.Image}}|{{.Command}}|{{.State}}|{{.Ports}}'",
        "web|web:1|\"sleep 1000\"|running|0.0.0.0:8080->80/tcp",
    ),
    ("ps -a --format 'table {{.Names}}\\t{{.State}}' | tr -s ' '", "NAMES STATE\nonce exited\nweb running"),
    ("ps -a --format '{{json .}}' | jq -r .Names", "once\nweb"),
    ("ps -a --format json | jq -r .Names", "once\nweb"),
    ("ps --format '{{.Label \"tier\"}} {{.Labels}}'", "front tier=front"),
    ("ps -q -f label=tier=front", "web"),
    ("ps -aq --filter exited=3", "once"),
    ("ps -q --filter status=exited", "once"),
    ("ps -aq --filter name=^on --filter name=^we", "once\nweb"),
    ("ps -aq -f ancestor=busybox", "once"),
    ("ps -aq -f publish=8080", "web"),
    ("container ls -aq -f since=web", "once"),
    (
        "inspect -f '{{.State.Status}} {{.State.ExitCode}} {{.HostConfig.Memory}}' web once",
        "running 0 67108864\nexited 3 0",
    ),
    ("inspect -f '{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}' web", "8080"),
    (
        "inspect -f '{{range .Mounts}}{{.Type}} {{.Source}} {{.Destination}} {{.RW}}{{end}}' web",
        "bind /usr /data false",
    ),
    ("inspect -f '{{.Config.Cmd}} {{index .Config.Labels \"tier\"}}' web", "[sleep 1000] front"),
    ("inspect -f '{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}' web", "none"),
    ("inspect -f '{{json .Config.Env}}' web:1 | grep -o A=b", "A=b"),
    ("inspect -f '{{.RepoTags}} {{.Os}} {{len .RootFS.Layers}}' busybox", "[busybox:latest] linux 1"),
    ("images --format '{{.Repository}}:{{.Tag}}' | sort", "busybox:latest\nweb:1"),
    ("images --format '{repository}' web", "web"),
    ("images -q | sort > a; ./stave images --format '{{.ID}}' | sort | cmp - a", ""),
    ("images --filter reference='we*' --format '{{.Tag}}'", "1"),
    ("images -f label=tier --format '{{.Repository}}'", "web"),
    ("images -f dangling=true -q", ""),
    ("images -f before=busybox --format '{{.Repository}}'", "web"),
    ("images -f since=web:1 --format '{{.Repository}}'", "busybox"),
];

/// Formats and filters as in scripts for docker.
#[test]
fn templates_and_filters_of_docker() {
    let host = Host::new();
    let before = host.0.snapshot();
    host.0.sh("mkdir web && printf 'FROM busybox\\nLABEL tier=front\\nENV A=b\\n' > web/Dockerfile").ok();
    host.0.sh("SOURCE_DATE_EPOCH=1000 ./stave build -q -t web:1 web").ok();
    host.prints("run -d --name web -p 8080:80 -v /usr:/data:ro -m 64m web:1 sleep 1000", "web");
    host.stave("run --name once --network none busybox sh -c 'exit 3'").exits(3);
    for (command, printed) in LIKE_DOCKER {
        host.prints(command, printed);
    }
    let address =
        host.stave("inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' web").ok();
    assert_eq!(host.stave("inspect -f '{{.NetworkSettings.IPAddress}}' web").ok(), address);
    assert_eq!(host.0.sh("container-ls --format '{ip}' web").ok(), address);
    let image = host.stave("inspect -f '{{.Image}}' web").ok();
    assert_eq!(host.stave("inspect -f '{{.Id}}' web:1").ok(), image);
    host.stave("network create front --subnet 10.9.0.0/24").ok();
    host.prints("network ls --format '{{.Name}} {{.Driver}}'", "front bridge");
    // A network on the host's wire.
    host.prints("network create -d macvlan -o parent=out0 lan", "lan");
    host.prints("network ls -f driver=macvlan --format '{{.Name}} {{.Driver}}'", "lan macvlan");
    host.prints(
        "run --rm --network lan --ip 192.0.2.9 busybox ip -o -4 address show eth0 | awk '{ print $4 }'",
        "192.0.2.9/24",
    );
    host.prints("run -d --name two --network front busybox sleep 1000", "two");
    host.stave("network connect --gateway-priority 1 lan two").ok();
    host.prints("exec two ip route show default | awk '{ print $3, $5; exit }'", "192.0.2.2 eth1");
    assert!(host.0.sh("container-ls --tree").ok().contains("lan: eth1 on macvlan of out0, 192.0.2."));
    host.stave("network disconnect lan two").ok();
    host.prints("exec two ip route show default | awk '{ print $3, $5; exit }'", "10.9.0.1 eth0");
    host.prints("rm -f two", "two");
    host.prints("network rm lan", "lan");
    host.prints("network ls -q -f name=fro", "front");
    host.prints("network ls -q -f dangling=false", "");
    host.prints("network rm front", "front");
    host.prints("ps -q -f volume=/data", "web");
    host.fails("ps -f isolation=x", 1, "container-ls: unknown filter \"isolation\"");
    let unknown = host.stave("ps --format '{{.Size}}'").exits(1);
    let line = "container-ls: template, character 3: no field .Size; there are ID, Names,";
    assert!(unknown.stderr.starts_with(line) && unknown.stdout.is_empty(), "{}", unknown.stderr);
    let broken = host.stave("ps --format '{{.ID'").exits(2);
    assert!(broken.stderr.contains("template, character 1: the action has no }}"), "{}", broken.stderr);
    host.prints("rm -f web once", "web\nonce");
    host.0.sh("img-rm -q web:1").ok();
    host.0.assert_as(&before);
}

/// What a container has, and who stands on it.
#[test]
fn a_tree_of_containers() {
    let host = Host::new();
    let before = host.0.snapshot();
    host.prints("run -d --name web -p 8080:80 -v /var:/data:ro busybox sleep 1000", "web");
    host.0
        .sh("img-inspect busybox | layer-apply --id agent | union-mount | union-snapshot > agent.json")
        .ok();
    host.0.sh("union-fork agent@1 --id try > try.json").ok();
    let tree = host.0.sh("container-ls --tree").ok();
    let web = host.0.sh("container-ls --format '{pid} {ip}' web").ok();
    let (pid, ip) = web.trim_end().split_once(' ').unwrap();
    let bridge = host.0.sh("jq -r '.networks[0].bridge.name' /run/stave/web.json").ok();
    let bridge = bridge.trim_end();
    for line in [
        "web  Up ".to_owned(),
        "agent  Created  busybox:latest\n├─ layers\n│  └─ /".to_owned(),
        "├─ mounts\n│  └─ /data from /var, read-only\n".to_owned(),
        format!("├─ networks\n│  └─ {bridge}: eth0 on bridge {bridge}, {ip}\n"),
        "├─ ports\n│  └─ 0.0.0.0:8080->80/tcp\n".to_owned(),
        format!("└─ process\n   └─ {pid}: sleep 1000\n"),
        "└─ snapshots\n   └─ agent@1\n      └─ try  Created  busybox:latest\n         ├─ layers\n".to_owned(),
    ] {
        assert!(tree.contains(&line), "{line}\n{tree}");
    }
    let picture = host.0.sh("container-ls --svg").ok();
    assert!(picture.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\" "), "{picture}");
    assert_eq!(picture.matches("<text ").count(), tree.lines().count(), "{picture}");
    // A fork whose container is not drawn is drawn alone.
    assert!(host.0.sh("container-ls --tree try").ok().starts_with("try  Created"));
    assert!(host.0.sh("container-ls --tree nobody try").exits(1).stdout.starts_with("try  Created"));
    host.0.sh("unwind -q try agent").ok();
    host.prints("rm -f web", "web");
    host.0.assert_as(&before);
}

/// Only what does not run, and what nothing uses. A pipe that is not complete keeps its container.
#[test]
fn prune_of_each_kind() {
    let host = Host::new();
    let before = host.0.snapshot();
    host.0.sh("mkdir web && printf 'FROM busybox\\nLABEL tier=front\\n' > web/Dockerfile").ok();
    host.stave("build -q -t web web").ok();
    host.0
        .sh("img-tag -q web other && img-inspect busybox | layer-apply --id half | union-mount > half.json")
        .ok();
    host.prints("run -d --name up web sleep 1000", "up");
    host.stave("run --name ended --network none busybox true").ok();
    host.stave("create --name made --network none web true").ok();
    host.stave("network create front --subnet 10.9.0.0/24").ok();
    host.stave("network create used --subnet 10.10.0.0/24").ok();
    host.prints("run -d --name on --network used busybox sleep 1000", "on");
    host.fails("container prune --filter until=1h", 2, "stave: prune filters by label only: until=1h");
    host.fails("container prune -a", 2, "stave: unknown flag: -a");
    host.fails("system mv", 2, "stave: system takes df, events, info and prune");
    let asked = host.stave("container prune < /dev/null").exits(0);
    assert_eq!(
        (asked.stdout.as_str(), asked.stderr.as_str()),
        ("", "This removes all containers that do not run. Continue? [y/N] ")
    );
    host.prints("container prune --dry-run", "ended\nmade");
    host.prints("container prune -f --filter label=tier=front", "made");
    host.prints("ps -aq", "ended\nhalf\non\nup");
    assert_eq!(host.0.sh("echo y | ./stave container prune").ok(), "ended\n");
    host.prints("network prune --dry-run", "front");
    host.prints("network prune -f", "front");
    host.prints("network ls -q", "used");
    host.prints("image prune -f", "");
    host.prints("image prune -af", "");
    host.prints("rm -f up", "up");
    let id = host.0.sh("img-ls --format '{id}' web").ok();
    assert_eq!(host.stave("image prune -a --dry-run 2> /dev/null").ok(), id);
    host.prints("images -q web | wc -l", "1");
    assert_eq!(host.stave("image prune -af --filter label=tier").ok(), id);
    host.prints("images --format '{{.Repository}}'", "busybox");
    // An image of a container that cannot be read may be any.
    host.0.sh("unwind -q half; echo { > /run/stave/bad.json").ok();
    let kept = host.stave("image prune -af").exits(1);
    assert!(kept.stdout.is_empty() && kept.stderr.contains("bad.json"), "{}", kept.stderr);
    host.0.sh("rm /run/stave/bad.json").ok();
    host.prints("rm -f on", "on");
    host.prints("system prune -f", "used");
    host.prints("images --format '{{.Repository}}'", "busybox");
    host.0.assert_as(&before);
}

/// What is on the disk, and not what is mounted there or what a sparse file could become.
#[test]
fn what_takes_space() {
    let host = Host::new();
    let before = host.0.snapshot();
    let empty = host.0.sh("STAVE_ROOT=$PWD/none space-ls --format '{type} {count} {active} {bytes}'").ok();
    let all = ["images", "layers", "containers", "volumes", "cache", "unused"];
    assert_eq!(empty, all.map(|kind| format!("{kind} 0 0 0\n")).concat());
    host.0.sh("mkdir web && printf 'FROM busybox\nRUN --network=none dd if=/dev/urandom of=/big bs=1M count=3 2> /dev/null\n' > web/Dockerfile").ok();
    host.stave("build -q -t web web").ok();
    let write =
        "sh -c 'dd if=/dev/urandom of=/tmp/a bs=1M count=2 2> /dev/null; ln /tmp/a /tmp/b; sleep 1000'";
    host.prints(&format!("run -d --name web --network none --storage-opt size=1G web {write}"), "web");
    host.prints(&format!("run -d --name up --network none -v db:/db busybox {write}"), "up");
    for name in ["web", "up"] {
        host.0.sh(&format!("until ./stave exec {name} test -e /tmp/b; do sleep 0.02; done; sync")).ok();
    }
    let rows = || host.0.sh("space-ls").json();
    let number = |kind: &str, name: &str| {
        let at = all.iter().position(|one| *one == kind).unwrap();
        let rows = rows();
        assert_eq!(rows[at]["type"], kind);
        rows[at][name].as_u64().unwrap()
    };
    let mib = |bytes: u64| bytes >> 20;
    let counts = "space-ls --format '{type} {count} {active}'";
    let step = "layers 2 2\ncontainers 2 2\nvolumes 1 1\ncache 1 0\nunused 0 0\n";
    assert_eq!(host.0.sh(counts).ok(), format!("images 2 2\n{step}"));
    let (images, containers) = (number("images", "bytes"), number("containers", "bytes"));
    assert!((3..10).contains(&mib(images)), "{images}");
    assert!((4..100).contains(&mib(containers)), "{containers}");
    assert_eq!((number("images", "reclaimable"), number("containers", "reclaimable")), (0, 0));
    host.prints("rm -f web", "web");
    assert_eq!(mib(number("images", "reclaimable")), 3);
    assert_eq!(mib(number("layers", "reclaimable")), 3);
    host.prints("stop -t 0 up", "up");
    assert_eq!(mib(number("containers", "reclaimable")), 2);
    host.prints("rm -f up", "up");
    // The build cache still has the layer of its step.
    host.stave("rmi web").ok();
    assert_eq!(mib(number("cache", "reclaimable")), 3);
    assert!(mib(images - number("images", "bytes")) == 3, "{images}");
    host.0.sh("img-gc -q --grace 0s --cache > /dev/null").ok();
    assert_eq!((number("cache", "count"), number("unused", "bytes")), (0, 0));
    let table = host.stave("system df").ok();
    let heads: Vec<_> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(heads, ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]);
    assert_eq!(host.stave("system df --format '{{.Type}} {{.TotalCount}}' | head -n 1").ok(), "Images 1\n");
    assert!(host.stave("system df -v").ok().contains("VOLUME"));
    host.prints("volume rm db", "db");
    host.0.assert_as(&before);
}
