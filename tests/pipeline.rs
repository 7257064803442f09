//! The pipe as a whole, with traffic through it.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use serde_json::{Value, json};
use testkit::{HOST, OUTSIDE, Sandbox};

const NETWORK: &str = "netns-bridge | veth-pair";
const SERVER: &str = "ns-exec -d -- httpd -f -p 80 -h /www";

/// Runs a container of the image busybox, with these tools between the root file system and the process.
fn start(sandbox: &Sandbox, id: &str, network: &str, process: &str) -> Value {
    let pipe = format!("layer-apply --id {id} < busybox.json | union-mount | {network} | {process}");
    sandbox.sh(&format!("{pipe} | tee {id}.json")).json()
}

/// A line for each file below a directory: name, mode, owner, time of change, content.
fn fingerprint(sandbox: &Sandbox, directory: &str) -> String {
    sandbox.sh(&format!("cd {directory} && tar -c --sort=name . | sha256sum; find . -printf '%p %m %U:%G %T@ %l\\n' | sort")).ok()
}

#[test]
fn a_published_port_answers_from_everywhere_and_unwind_leaves_nothing() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    let document = start(&sandbox, "web", &format!("{NETWORK} | portmap -p 10080:80"), SERVER);
    assert_eq!(document["id"], "web");
    assert_eq!(document["network"]["bridge"]["subnet"], "172.17.0.0/16");
    assert_eq!(document["ports"], json!([{"hostPort": 10080, "containerPort": 80, "protocol": "tcp"}]));
    let page = "a page of the image\n";
    assert_eq!(sandbox.fetch("http://127.0.0.1:10080/"), page);
    assert_eq!(sandbox.fetch(&format!("http://{HOST}:10080/")), page);
    assert_eq!(sandbox.fetch_outside(&format!("http://{HOST}:10080/")), page);
    let address =
        document["network"]["cni"]["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap();
    assert_eq!(sandbox.fetch(&format!("http://{address}/")), page);

    // The container reaches the outside with the host's address, and reaches itself by its published port
    // (hairpin).
    sandbox.outside("mkdir -p www && echo outside > www/index.html && busybox httpd -p 8080 -h www").ok();
    let inside = |url: &str| sandbox.sh(&format!("nsenter --net=/run/netns/web curl -s -m 3 {url}")).ok();
    assert_eq!(inside(&format!("http://{OUTSIDE}:8080/")), "outside\n");
    assert_eq!(inside(&format!("http://{HOST}:10080/")), page);
    assert_eq!(inside("http://172.17.0.1:10080/"), page);
    sandbox.sh("kill $(pidof busybox)").ok();

    let after = sandbox.sh("unwind < web.json").json();
    assert!(after["steps"].as_array().is_none_or(Vec::is_empty), "{after}");
    sandbox.assert_as(&before);
    assert_eq!(sandbox.sh("unwind < web.json > /dev/null").status, 0, "of what is gone already");
    assert_eq!(sandbox.sh("unwind web > /dev/null").status, 0, "by the name of what is gone already");
}

#[test]
fn the_clients_address_arrives_in_the_container() {
    let sandbox = Sandbox::with_busybox();
    let server = "ns-exec -d -- nc -ll -p 80 -e netstat -tn";
    start(&sandbox, "web", &format!("{NETWORK} | portmap -p 10080:80"), server);
    sandbox.sh("until nsenter --net=/run/netns/web ss -Hlnt | grep -q ':80 '; do sleep 0.01; done").ok();
    let seen = sandbox.outside(&format!("busybox nc -w 2 {HOST} 10080 < /dev/null"));
    assert!(seen.stdout.contains(&format!("{OUTSIDE}:")), "{seen:?}");
}

/// A router advertisement of a container must not give the host a route (CVE-2020-10749). An IPv4 network has no IPv6
/// address, as with Docker. `::1` answers within the container.
#[test]
fn ipv6_is_off_but_for_the_containers_own_loopback() {
    let sandbox = Sandbox::with_busybox();
    start(&sandbox, "web", NETWORK, SERVER);
    let link = "ip -o link show master stave0 | sed 's/^[0-9]*: \\([^@]*\\).*/\\1/'";
    let off = |link: &str| sandbox.sh(&format!("cat /proc/sys/net/ipv6/conf/{link}/disable_ipv6")).ok();
    assert_eq!((off("stave0"), off(&format!("$({link})"))), ("1\n".into(), "1\n".into()));
    let addresses = "nsenter --net=/run/netns/web ip -6 -o addr | awk '{ print $2, $4 }'";
    assert_eq!(sandbox.sh(addresses).ok(), "lo ::1/128\n");
    let checked = sandbox.sh("netns-bridge --check < web.json | veth-pair --check > /dev/null; echo $?");
    assert_eq!(checked.ok(), "0\n");
    sandbox.sh("echo 0 > /proc/sys/net/ipv6/conf/stave0/disable_ipv6").ok();
    let drifted = sandbox.sh("netns-bridge --check < web.json > /dev/null");
    assert!(drifted.stderr.contains("IPv6 switched off on link \"stave0\""), "{drifted:?}");
    sandbox.sh("netns-bridge --repair < web.json > /dev/null").ok();
    assert_eq!(off("stave0"), "1\n");
}

#[test]
fn udp_and_a_single_host_address() {
    let sandbox = Sandbox::with_busybox();
    let ports = format!("{NETWORK} | portmap -p {HOST}:5353:53/udp -p 127.0.0.1:8080:80");
    start(&sandbox, "web", &ports, SERVER);
    assert_eq!(sandbox.fetch("http://127.0.0.1:8080/"), "a page of the image\n");
    let other = format!("curl -s -m 1 http://{HOST}:8080/");
    assert_ne!(sandbox.outside(&other).status, 0, "published on 127.0.0.1 alone");
    // busybox has no UDP server: perl runs in the container's network, with the host's files.
    let socket = "use IO::Socket::INET; my $s = IO::Socket::INET->new(Proto => 'udp',";
    for (name, rest) in [
        (
            "server.pl",
            "LocalPort => 53) or die; $s->recv(my $question, 99); $s->send(\"answer to $question\");",
        ),
        (
            "client.pl",
            "PeerAddr => $ARGV[0]) or die; $s->send('ask'); alarm 3; $s->recv(my $a, 99); print $a;",
        ),
    ] {
        std::fs::write(sandbox.directory().join(name), format!("{socket} {rest}")).unwrap();
    }
    sandbox.sh("nsenter --net=/run/netns/web perl server.pl > /dev/null 2>&1 &").ok();
    sandbox.sh("until nsenter --net=/run/netns/web ss -Hlnu | grep -q ':53 '; do sleep 0.01; done").ok();
    assert_eq!(sandbox.outside(&format!("perl client.pl {HOST}:5353")).ok(), "answer to ask");
}

/// Docker's networks are separate (DOCKER-ISOLATION): containers of one reach those of another only by published ports.
#[test]
fn networks_reach_each_other_by_published_ports_alone() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    let other = "netns-bridge --bridge other0 --subnet 10.9.0.0/24 | veth-pair";
    start(&sandbox, "web", &format!("{NETWORK} | portmap -p 10080:80"), SERVER);
    start(&sandbox, "sibling", NETWORK, SERVER);
    start(&sandbox, "stranger", &format!("{other} | portmap -p 127.0.0.1:10081:80"), SERVER);
    let page = "a page of the image\n";
    let asks = |from: &str, to: &str| {
        sandbox.sh(&format!("nsenter --net=/run/netns/{from} curl -s -m 2 http://{to}/")).stdout
    };
    let address = |id: &str| {
        let address = format!("jq -r .network.cni.ips[0].address {id}.json | cut -d/ -f1");
        sandbox.sh(&address).ok().trim().to_owned()
    };
    let (web, stranger) = (address("web"), address("stranger"));
    assert_eq!(sandbox.fetch(&format!("http://{web}/")), page, "the host reaches all");
    assert_eq!(sandbox.fetch(&format!("http://{stranger}/")), page);
    let apart = |context: &str| {
        assert_eq!(asks("sibling", &web), page, "{context}: within one network");
        assert_eq!(asks("stranger", &web), "", "{context}");
        assert_eq!(asks("web", &stranger), "", "{context}");
        for host in [HOST, "172.17.0.1", "10.9.0.1"] {
            assert_eq!(asks("stranger", &format!("{host}:10080")), page, "{context}: by {host}");
        }
    };
    apart("as made");
    // Packets that leave through neither bridge are not checked.
    let server = "busybox httpd -f -p 8080 -h www > /dev/null 2>&1 & echo $! > httpd.pid; \
        until ss -Hlnt | grep -q ':8080 '; do sleep 0.01; done";
    sandbox.outside(&format!("mkdir -p www && echo outside > www/index.html; {server}")).ok();
    assert_eq!(asks("stranger", &format!("{OUTSIDE}:8080")), "outside\n");

    sandbox.sh("nft flush chain inet stave forward").ok();
    assert_eq!(asks("stranger", &web), page, "without the rule they do: the test tests something");
    let drifted = sandbox.sh("netns-bridge --check < web.json > /dev/null").exits(1);
    assert!(drifted.stderr.contains("missing: rule forward"), "{}", drifted.stderr);
    sandbox.sh("netns-bridge --repair < web.json > /dev/null").ok();
    apart("repaired");
    sandbox.sh("kill $(cat httpd.pid)").ok();
    sandbox.sh("unwind stranger > /dev/null").ok();
    assert_eq!(asks("sibling", &web), page);
    let elements = "nft list set inet stave same_bridge | grep -o '{ \".*'";
    assert_eq!(sandbox.sh(elements).ok(), "{ \"stave0\" . \"stave0\" }\n", "the other one is gone");
    sandbox.sh("unwind web sibling > /dev/null").ok();
    sandbox.assert_as(&before);
}

#[test]
fn writes_stand_in_the_upper_directory_alone_and_layers_are_shared() {
    let sandbox = Sandbox::with_busybox();
    let write = |id: &str| {
        let process = format!("ns-exec --document {id}.json -- sh -c 'echo {id} > /written; cat /written'");
        sandbox.sh(&format!("layer-apply --id {id} < busybox.json | union-mount | {process}")).ok()
    };
    sandbox.sh("layer-apply --id first < busybox.json | unwind > /dev/null").ok();
    let layers = fingerprint(&sandbox, "root/layers");
    assert_eq!((write("one"), write("two")), ("one\n".into(), "two\n".into()));
    let document = |id: &str| sandbox.sh(&format!("cat {id}.json")).json();
    let (one, two) = (document("one"), document("two"));
    assert_eq!(one["layers"], two["layers"]);
    assert_eq!(one["rootfs"]["lower"], two["rootfs"]["lower"]);
    for (id, document) in [("one", &one), ("two", &two)] {
        let upper = document["rootfs"]["upper"].as_str().unwrap();
        assert_eq!(sandbox.sh(&format!("cat {upper}/written")).ok(), format!("{id}\n"));
        assert_eq!(sandbox.sh(&format!("find {upper} -mindepth 1")).ok(), format!("{upper}/written\n"));
    }
    assert_eq!(fingerprint(&sandbox, "root/layers"), layers);
}

#[test]
fn exit_status_and_output_are_the_commands_own() {
    let sandbox = Sandbox::with_busybox();
    let mounted = "layer-apply < busybox.json | union-mount";
    for (command, status, output) in [
        ("echo hello", 0, "hello\n"),
        ("sh -c 'exit 7'", 7, ""),
        ("/missing", 127, ""),
        ("/etc/passwd", 126, ""),
        ("id -u", 0, "0\n"),
        ("sh -c 'echo $$'", 0, "1\n"),
    ] {
        let outcome = sandbox.sh(&format!("{mounted} | ns-exec -- {command}")).exits(status);
        assert_eq!(outcome.stdout, output, "{command}");
    }
    // The first process of a pid namespace can only be killed from outside (pid_namespaces(7)).
    let script = format!(
        "{mounted} > mounted.json; mkfifo status; ns-exec --from mounted.json --status-fd 3 -- sleep 1000 3> status &
        read -r line < status; kill -KILL $(echo $line | jq .pid); wait $!"
    );
    sandbox.sh(&script).exits(137);
}

#[test]
fn a_failure_travels_and_what_was_made_before_it_goes_by_unwind() {
    let sandbox = Sandbox::with_busybox();
    start(&sandbox, "first", &format!("{NETWORK} | portmap -p 10080:80"), SERVER);
    let before = sandbox.snapshot();
    let pipe = "layer-apply --id second < busybox.json | union-mount | netns-bridge | veth-pair | portmap -p 10080:80";
    let outcome = sandbox.sh(&format!("{pipe} | ns-exec -d -- true > second.json")).exits(125);
    assert!(outcome.stderr.starts_with("portmap: "), "{}", outcome.stderr);
    assert_eq!(
        outcome.stderr.lines().filter(|line| !line.starts_with("hint: ")).count(),
        1,
        "{}",
        outcome.stderr
    );
    let document = sandbox.sh("cat second.json").json();
    assert_eq!(document["error"]["tool"], "portmap");
    let tools: Vec<_> = document["steps"].as_array().unwrap().iter().map(|step| &step["tool"]).collect();
    assert_eq!(tools, ["img-load", "layer-apply", "union-mount", "netns-bridge", "veth-pair"]);
    sandbox.sh("unwind < second.json > /dev/null").ok();
    sandbox.assert_as(&before);
    assert_eq!(
        sandbox.fetch("http://127.0.0.1:10080/"),
        "a page of the image\n",
        "the first one is as it was"
    );
}

#[test]
fn a_stranger_may_stand_anywhere_in_the_pipe() {
    let sandbox = Sandbox::with_busybox();
    let stranger = r#"jq -c '. + {"mine": {"z": [1, null], "a": 1e2}}'"#;
    let document = sandbox
        .sh(&format!("{stranger} < busybox.json | layer-apply | jq . | union-mount | jq -S . | netns-bridge | veth-pair | tee x.json"))
        .json();
    assert_eq!(document["mine"], json!({"z": [1, null], "a": 100}));
    sandbox.sh("jq -c .steps[].tool x.json && unwind < x.json > /dev/null").ok();
}

#[test]
fn check_tells_what_is_missing_and_repair_makes_it_again() {
    let sandbox = Sandbox::with_busybox();
    start(&sandbox, "web", &format!("{NETWORK} | portmap -p 10080:80"), SERVER);
    let tools = ["union-mount", "netns-bridge", "veth-pair", "portmap"];
    for tool in tools {
        sandbox.sh(&format!("{tool} --check < web.json > /dev/null")).ok();
    }
    sandbox.sh("nft flush ruleset").ok();
    assert_ne!(sandbox.sh("portmap --check < web.json > /dev/null").status, 0);
    for tool in tools {
        sandbox.sh(&format!("{tool} --repair < web.json > /dev/null")).ok();
    }
    sandbox.sh("portmap --check < web.json > /dev/null").ok();
    assert_eq!(sandbox.fetch_outside(&format!("http://{HOST}:10080/")), "a page of the image\n");
    sandbox.sh("unwind < web.json > /dev/null").ok();
}

/// A document can outlive its container. Another container may have the id by then, made by the same steps.
#[test]
fn a_document_takes_back_no_other_container_of_its_id() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    let pipe = "layer-apply --id web < busybox.json | union-mount";
    sandbox.sh(&format!("{pipe} > old.json; unwind web > /dev/null")).ok();
    sandbox.sh(&format!("{pipe} > new.json; touch root/containers/web/upper/mine")).ok();
    let says = |tool: &str| {
        format!(
            "{tool}: container \"web\" exists: \"/run/stave/web.json\" belongs to another container than this document\n\
             hint: run `unwind web`, or choose another `--id`\n"
        )
    };
    for (tool, line) in [
        ("unwind", "unwind < old.json > /dev/null"),
        ("union-mount", "union-mount --undo < old.json > /dev/null"),
        ("union-mount", "union-mount --repair < old.json > /dev/null"),
        ("netns-bridge", "netns-bridge < old.json > /dev/null"),
        ("img-commit", "img-commit -t stolen < old.json > /dev/null"),
        ("layer-diff", "layer-diff --list < old.json"),
    ] {
        assert_eq!(sandbox.sh(line).exits(1).stderr, says(tool));
    }
    sandbox.sh("union-mount --check < new.json && test -e root/containers/web/rootfs/mine").ok();
    // Undo with an older document of the same container, and with one that is already partly undone.
    sandbox.sh("union-mount --undo < new.json > /dev/null; unwind < new.json > /dev/null").ok();
    sandbox.assert_as(&before);
}

/// Remains of a container from before a restart are removed under its lock, and not if a new one is being made.
#[test]
fn what_is_left_goes_once() {
    let sandbox = Sandbox::with_busybox();
    sandbox.sh("mkdir -p root/containers/web/upper").ok();
    let slowly =
        "strace -f -o /dev/null -e trace=openat2 -e inject=openat2:delay_enter=1000000:when=1 unwind web";
    let anew = "layer-apply --id web < busybox.json | union-mount > web.json";
    let script = format!("{slowly} > /dev/null & sleep 0.5; unwind web > /dev/null; {anew}; wait $!");
    sandbox.sh(&script).ok();
    sandbox
        .sh("test -e root/containers/web/upper && union-mount --check < web.json && unwind < web.json")
        .ok();
}

/// `--repair` is recorded: the record lists what was made again, and still everything else.
#[test]
fn repair_loses_nothing_of_the_record() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    let pipe = "layer-apply --id web < busybox.json | union-mount | tee mounted.json | netns-bridge | veth-pair > web.json";
    sandbox.sh(pipe).ok();
    let record = sandbox.run().join("stave/web.json");
    let recorded = std::fs::read(&record).unwrap();
    // A document that is older than the network.
    let repair = "umount root/containers/web/rootfs; union-mount --repair < mounted.json > /dev/null";
    sandbox.sh(repair).ok();
    assert_eq!(std::fs::read_to_string(&record).unwrap(), String::from_utf8(recorded.clone()).unwrap());
    // A document of another container with the same name.
    sandbox.sh("jq -c '.steps[-1].version = \"0\"' mounted.json > other.json").ok();
    let refused = sandbox.sh("union-mount --repair < other.json").exits(1).stderr;
    assert!(
        refused.contains(r#"container "web" exists: "/run/stave/web.json" lists other steps"#),
        "{refused}"
    );
    // A container that is being unwound.
    sandbox.sh("jq -c '.error = {tool: \"unwind\", step: \"undo\", message: \"\"}' web.json > /run/stave/web.json").ok();
    for line in ["union-mount --repair < web.json", "portmap -p 80 < web.json"] {
        let refused = sandbox.sh(line).exits(1).stderr;
        assert!(
            refused.contains(r#"container "web" is being unwound, according to "/run/stave/web.json""#),
            "{refused}"
        );
    }
    // As after a restart.
    std::fs::remove_file(&record).unwrap();
    sandbox.sh(repair).ok();
    assert!(std::fs::read_to_string(&record).unwrap().contains("union-mount"));
    std::fs::write(&record, recorded).unwrap();
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
}

/// The new namespace has another inode than the one that the record knows.
#[test]
fn a_repair_that_was_killed_is_taken_back() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    sandbox.sh("layer-apply --id web < busybox.json | netns-bridge > web.json").ok();
    sandbox.sh("umount /run/netns/web && rm /run/netns/web").ok();
    let killed =
        "strace -f -o trace -e trace=renameat2 -e inject=renameat2:signal=KILL netns-bridge --repair";
    assert_ne!(sandbox.sh(&format!("{killed} < web.json")).status, 0);
    sandbox.sh("grep -q rename trace && mountpoint /run/netns/web").ok();
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
    // Killed before the namespace is mounted on its file, while a link of the container is already in it.
    sandbox.sh("layer-apply --id web < busybox.json | netns-bridge | veth-pair > web.json").ok();
    sandbox.sh("ip netns del web; sleep 0.1; ip link del stave0").ok();
    let killed = "strace -f -o trace -e trace=mount -e inject=mount:signal=KILL netns-bridge --repair";
    assert_ne!(sandbox.sh(&format!("{killed} < web.json")).status, 0);
    sandbox.sh("test -f /run/netns/web && ! mountpoint /run/netns/web").ok();
    assert_eq!(sandbox.sh("unwind web > /dev/null").exits(0).stderr, "");
    sandbox.assert_as(&before);
}

/// The second record, beside the container's files, counts until the machine is restarted.
#[test]
fn a_lost_record_is_made_up_for_by_the_second_one() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    let pipe = "layer-apply --id web < busybox.json | union-mount | netns-bridge | veth-pair | portmap -p 80:80 > web.json";
    let lost = "rm /run/stave/web.json";
    for undo in ["unwind web", "unwind < web.json", "veth-pair --undo < web.json | unwind"] {
        sandbox.sh(&format!("{pipe}; {lost}; {undo} > /dev/null")).ok();
        sandbox.assert_as(&before);
    }
    // As after a restart: nothing is mounted, the network is empty, and the boot id is another one.
    let restart = r#"umount root/containers/web/rootfs; ip link del stave0; umount /run/netns/web; rm -r /run/netns /run/stave/*
        nft delete table inet stave; echo 0 > /proc/sys/net/ipv4/ip_forward
        sed -i 's/"boot":"[^"]*"/"boot":"another"/g' root/containers/web/record.json web.json"#;
    let durable = pipe.replace("union-mount", "union-mount --durable");
    sandbox.sh(&format!("{durable}; touch root/containers/web/rootfs/mine; {restart}")).ok();
    sandbox
        .sh("for tool in union-mount netns-bridge veth-pair portmap; do $tool --repair < web.json > /dev/null || exit; done
             portmap --check < web.json > /dev/null && test -e root/containers/web/rootfs/mine && unwind web > /dev/null")
        .ok();
    sandbox.assert_as(&before);
    // What was not made durable is lost, and removed with `unwind`. A restart would also free the held ports.
    let pipe = pipe.replace("| portmap -p 80:80", "");
    sandbox.sh(&format!("{pipe}; {restart}")).ok();
    let refused = sandbox.sh("img-commit -t x < web.json > /dev/null").exits(1).stderr;
    assert!(refused.starts_with("img-commit: the files of container \"web\" are lost"), "{refused}");
    assert!(sandbox.sh("union-mount --repair < web.json").exits(1).stderr.contains("may be half written"));
    sandbox.sh("rm -f /run/stave/web.json; unwind < web.json > /dev/null").ok();
    sandbox.assert_as(&before);
}

#[test]
fn what_a_restart_of_the_machine_left_goes_by_its_name() {
    let sandbox = Sandbox::with_busybox();
    let before = sandbox.snapshot();
    let made = "export STAVE_RUN=/run/others; layer-apply --id web < busybox.json | union-mount > web.json";
    sandbox.sh(&format!("mkdir /run/others; {made}; touch root/containers/web/upper/mine")).ok();
    // A container of somebody who keeps the records elsewhere.
    let directory = sandbox.root().join("containers/web");
    for line in ["unwind web", "unwind < web.json > /dev/null", "union-mount --undo < web.json > /dev/null"] {
        let refused = sandbox.sh(line).exits(1);
        assert!(
            refused.stderr.ends_with(&format!(
                "remove {directory:?}: it is mounted, and has no record in \"/run/stave\"\n\
                 hint: name the directory of its record: --run-dir DIR (STAVE_RUN)\n"
            )),
            "{refused:?}"
        );
    }
    assert!(directory.join("upper/mine").exists());
    // After a restart nothing is mounted, and /run is empty.
    sandbox.sh("umount root/containers/web/rootfs && rm -r /run/others").ok();
    let taken = sandbox.sh("layer-apply --id web < busybox.json | union-mount").exits(1).stderr;
    assert!(taken.ends_with("hint: run `unwind web`, or choose another `--id`\n"), "{taken}");
    sandbox.sh("unwind web > /dev/null").ok();
    assert!(
        directory.join("upper/mine").exists(),
        "this was the pipe that failed: its record went, and no more"
    );
    assert_eq!(sandbox.sh("unwind --explain web").ok(), format!("rm -rf {}\n", directory.display()));
    sandbox.sh("unwind web > /dev/null").ok();
    assert!(!directory.exists());
    sandbox.assert_as(&before);
}
