//! Published ports are held: which processes may bind what. Needs root, socat, setpriv and the tools
//! netns-bridge, veth-pair, portmap and unwind.
#![allow(clippy::unwrap_used)]

use testkit::Sandbox;

fn sandbox() -> Sandbox {
    testkit::require_root();
    Sandbox::new()
}

/// Runs a command without the capabilities that bpf(2) needs.
const WITHOUT_PROGRAM: &str = "setpriv --bounding-set -sys_admin,-bpf ";

fn start(sandbox: &Sandbox, id: &str, portmap: &str) {
    sandbox.sh(&format!("netns-bridge -n --id {id} | veth-pair | {portmap} > {id}.json")).ok();
}

fn stop(sandbox: &Sandbox, id: &str) {
    sandbox.sh(&format!("unwind {id} > /dev/null")).ok();
}

/// Kills the holder. The holder takes its name shortly after portmap has ended.
const KILL: &str = "until pkill -KILL port-hold; do sleep 0.01; done; until ! pgrep port-hold > /dev/null; do sleep 0.01; done";

/// Whether a process can bind socat's `address` on the host, in a container's network namespace, or in a new
/// one (`other`).
fn can(sandbox: &Sandbox, from: &str, address: &str) -> bool {
    let within = match from {
        "host" => String::new(),
        "other" => "unshare --net sh -c 'ip link set lo up; exec \"$@\"' sh ".to_owned(),
        id => format!("ip netns exec {id} "),
    };
    let script = format!(
        "rm -f bind.log; socat -d -d -u {address} /dev/null < /dev/null > bind.log 2>&1 & pid=$!
         until grep -qs -e 'listening on' -e 'starting data transfer loop' -e ' E ' bind.log; do sleep 0.01; done
         kill $pid 2> /dev/null; wait; cat bind.log"
    );
    let told = sandbox.sh(&format!("cat > bind.sh <<'X'\n{script}\nX\n{within}sh bind.sh")).ok();
    let is_refused = told.contains("Address already in use");
    assert!(is_refused || !told.contains(" E "), "{address}: {told}");
    !is_refused
}

fn check(sandbox: &Sandbox, id: &str) -> String {
    sandbox.sh(&format!("portmap --check < {id}.json > /dev/null")).stderr
}

/// What a process of the host can bind while a container has the ports of [`PORTS`], held by a program or by
/// a process.
const PORTS: &str = "-p 8080:80 -p 8053:53/udp -p 127.0.0.1:8081:81 -p 192.0.2.1:8082:82 -p 8090-8099:90-99";
const MAY: [(&str, bool); 24] = [
    ("TCP4-LISTEN:8080", false),
    ("TCP4-LISTEN:8080,reuseaddr", false),
    ("TCP4-LISTEN:8080,reuseaddr,reuseport", false),
    ("TCP4-LISTEN:8080,bind=127.0.0.1,reuseaddr", false),
    ("TCP4-LISTEN:8080,bind=192.0.2.1", false),
    ("TCP6-LISTEN:8080,reuseaddr", false),
    ("TCP6-LISTEN:8080,bind=[::ffff:127.0.0.1]", false),
    ("TCP6-LISTEN:8080,bind=[::1]", true),
    ("UDP4-RECV:8080", true),
    ("UDP4-RECV:8053", false),
    ("UDP4-RECV:8053,reuseaddr,reuseport", false),
    ("UDP6-RECV:8053", false),
    ("TCP4-LISTEN:8053", true),
    ("TCP4-LISTEN:8081,bind=127.0.0.1", false),
    ("TCP4-LISTEN:8081,reuseaddr", false),
    ("TCP6-LISTEN:8081,reuseaddr", false),
    ("TCP4-LISTEN:8081,bind=192.0.2.1", true),
    ("TCP4-LISTEN:8082,bind=127.0.0.1", true),
    ("TCP4-LISTEN:8082,bind=192.0.2.1", false),
    ("TCP4-LISTEN:8082", false),
    ("TCP4-LISTEN:8090", false),
    ("TCP4-LISTEN:8099,reuseaddr", false),
    ("TCP4-LISTEN:8100", true),
    ("TCP4-LISTEN:0,reuseaddr", true),
];

fn assert_held(sandbox: &Sandbox, how: &str) {
    for (address, expected) in MAY {
        assert_eq!(can(sandbox, "host", address), expected, "{how}: {address}");
    }
}

#[test]
fn a_process_of_the_host_can_have_no_published_port() {
    let sandbox = sandbox();
    let before = sandbox.snapshot();
    for (how, prefix) in [("by a program", ""), ("by a process", WITHOUT_PROGRAM)] {
        start(&sandbox, "web", &format!("{prefix}portmap {PORTS}"));
        assert_held(&sandbox, how);
        assert_eq!(check(&sandbox, "web"), "", "{how}");
        let holders = sandbox.sh("pgrep -c port-hold || true").ok();
        assert_eq!(holders.trim() == "1", !prefix.is_empty(), "{how}: {holders}");
        // The container may bind its own ports, and other network namespaces are like other hosts.
        for from in ["web", "other"] {
            for address in ["TCP4-LISTEN:8080", "UDP4-RECV:8053", "TCP4-LISTEN:8081,bind=127.0.0.1"] {
                assert!(can(&sandbox, from, address), "{how}: {from}: {address}");
            }
        }
        stop(&sandbox, "web");
        for (address, _) in MAY {
            assert!(can(&sandbox, "host", address), "{how}, after undo: {address}");
        }
        sandbox.assert_as(&before);
    }
}

/// Two containers of two run directories have the same port, each on one address.
#[test]
fn a_port_on_two_addresses_is_free_when_both_are_gone() {
    let sandbox = sandbox();
    start(&sandbox, "one", "portmap -p 127.0.0.1:8080:80");
    let second = "--run-dir /run/second";
    sandbox
        .sh(&format!(
            "netns-bridge -n --id two {second} | veth-pair {second} | portmap {second} -p 192.0.2.1:8080:80 -p 8081:81 > two.json"
        ))
        .ok();
    let taken = sandbox.sh("portmap -p 8081:81 < one.json > /dev/null").exits(1).stderr;
    assert!(taken.starts_with("portmap: host port 8081/tcp is taken by container \"two\""), "{taken}");
    let may = |sandbox: &Sandbox| {
        ["", ",bind=127.0.0.1", ",bind=192.0.2.1", ",bind=127.0.0.2"]
            .map(|bind| can(sandbox, "host", &format!("TCP4-LISTEN:8080,reuseaddr{bind}")))
    };
    assert_eq!(may(&sandbox), [false, false, false, true]);
    stop(&sandbox, "one");
    assert_eq!(may(&sandbox), [false, true, false, true]);
    assert!(!can(&sandbox, "host", "TCP4-LISTEN:8081"));
    sandbox.sh(&format!("unwind {second} two > /dev/null")).ok();
    assert_eq!(may(&sandbox), [true; 4]);
    assert!(can(&sandbox, "host", "TCP4-LISTEN:8081"));
}

/// A port stays reserved while another container has it with the other IP version.
#[test]
fn a_reserved_port_is_needed_by_either_version() {
    let sandbox = sandbox();
    let reserved = || sandbox.sh("cat /proc/sys/net/ipv4/ip_local_reserved_ports").ok().trim().to_owned();
    let attach = |id: &str, port: &str| {
        sandbox
            .sh(&format!("netns-bridge -n --id {id} --ipv6 | veth-pair | portmap -p {port}:80 > {id}.json"))
            .ok()
    };
    attach("one", "0.0.0.0:40000");
    attach("two", "'[::]:40000'");
    stop(&sandbox, "one");
    assert_eq!(reserved(), "40000");
    stop(&sandbox, "two");
    assert_eq!(reserved(), "");
}

/// The kernel chooses no published port for a socket without a given port.
#[test]
fn the_kernel_chooses_no_published_port() {
    let sandbox = sandbox();
    let before = sandbox.snapshot();
    let range = "/proc/sys/net/ipv4/ip_local_port_range";
    let reserved = || sandbox.sh("cat /proc/sys/net/ipv4/ip_local_reserved_ports").ok().trim().to_owned();
    // The administrator has reserved two ports, for a future service and for one of the containers.
    sandbox
        .sh(&format!(
            "echo 40000 40009 > {range}; echo 40001,40004 > /proc/sys/net/ipv4/ip_local_reserved_ports"
        ))
        .ok();
    start(
        &sandbox,
        "web",
        "portmap -p 40004:80 -p 40005:81 -p 40006-40007:86-87/udp -p 8080:88 -p 40009:89/udp",
    );
    assert_eq!(reserved(), "40001,40004-40007,40009");
    start(&sandbox, "dns", "portmap -p 40004:53/udp | portmap -p 40005:53/udp -p 80");
    let drawn = sandbox.sh("jq .ports[2].hostPort dns.json").ok().trim().parse::<u16>().unwrap();
    assert!(![40001, 40004, 40005].contains(&drawn) && (40000..=40009).contains(&drawn), "{drawn}");
    let standing = reserved();
    // Every other port is given out, and then none is left.
    let serve = "socat TCP4-LISTEN:0,fork /dev/null > /dev/null 2>&1 < /dev/null &";
    sandbox.sh(&format!("for n in 1 2 3 4 5 6; do {serve} done; sleep 0.3")).ok();
    let listening = sandbox.sh("ss -Hlnt | awk '{ print $4 }' | cut -d: -f2 | sort -n | tr '\\n' ' '").ok();
    let free: Vec<u16> = listening.split_whitespace().map(|port| port.parse().unwrap()).collect();
    let published = [40001, 40004, 40005, 40006, 40007, 40009, drawn];
    let expected: Vec<u16> = (40000..=40009).filter(|port| !published.contains(port)).collect();
    assert_eq!(free, expected, "with {standing} reserved");
    sandbox.sh("pkill socat || true").ok();
    stop(&sandbox, "web");
    let one = |port: u16| ["40000", "40002", "40003", "40008"].contains(&port.to_string().as_str());
    assert!(one(drawn) || [40006, 40007, 40009].contains(&drawn), "{drawn}");
    // Beside the drawn port, the two are part of a longer range.
    let has = |port: u16| {
        reserved().split(',').any(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            (first.parse().unwrap()..=last.parse().unwrap()).contains(&port)
        })
    };
    assert!(has(40004) && has(40005), "the other one has a port of that number: {}", reserved());
    stop(&sandbox, "dns");
    assert_eq!(reserved(), "40001,40004", "as before");
    sandbox
        .sh(&format!("echo 32768 60999 > {range}; echo > /proc/sys/net/ipv4/ip_local_reserved_ports"))
        .ok();
    sandbox.assert_as(&before);
}

#[test]
fn a_hold_that_is_gone_is_told_and_made_again() {
    let sandbox = sandbox();
    let before = sandbox.snapshot();
    start(&sandbox, "web", &format!("{WITHOUT_PROGRAM}portmap -p 8080:80 -p 40000:81"));
    assert!(!can(&sandbox, "host", "TCP4-LISTEN:8080"));
    sandbox.sh(&format!("{KILL}; echo > /proc/sys/net/ipv4/ip_local_reserved_ports")).ok();
    assert!(can(&sandbox, "host", "TCP4-LISTEN:8080"));
    let missing = "portmap: missing: hold of host port 8080/tcp\nportmap: 1 of the things that the document lists is not as listed\n";
    assert_eq!(check(&sandbox, "web"), missing);
    for (repair, kill) in [
        (format!("{WITHOUT_PROGRAM}portmap --repair"), KILL),
        ("portmap --repair".to_owned(), "true"),
        ("net-repair --all".to_owned(), "true"),
    ] {
        sandbox.sh(&format!("{repair} < web.json > /dev/null")).ok();
        assert_eq!(check(&sandbox, "web"), "", "{repair}");
        assert!(!can(&sandbox, "host", "TCP4-LISTEN:8080"), "{repair}");
        let reserved = sandbox.sh("cat /proc/sys/net/ipv4/ip_local_reserved_ports").ok();
        assert_eq!(reserved, "40000\n", "{repair}");
        sandbox.sh(&format!("{kill}; echo > /proc/sys/net/ipv4/ip_local_reserved_ports")).ok();
    }
    let missing = "portmap: missing: port 40000 in net.ipv4.ip_local_reserved_ports\n";
    assert!(check(&sandbox, "web").starts_with(missing), "{}", check(&sandbox, "web"));
    // Without the right to look for the program, portmap does not report that it is gone.
    stop(&sandbox, "web");
    start(&sandbox, "web", "portmap -p 8080:80");
    let undone = sandbox.sh(&format!("{WITHOUT_PROGRAM}portmap --undo < web.json > /dev/null")).exits(1);
    assert_eq!(undone.stderr, "portmap: undo: release host port 8080/tcp: Operation not permitted\n");
    assert!(!can(&sandbox, "host", "TCP4-LISTEN:8080"));
    // A process takes the port in the meantime. The error names the port, and the process keeps it.
    stop(&sandbox, "web");
    start(&sandbox, "web", &format!("{WITHOUT_PROGRAM}portmap -p 8080:80"));
    let serve = "socat TCP4-LISTEN:8080,fork /dev/null > /dev/null 2>&1 < /dev/null & until ss -Hlnt | grep -q :8080; do sleep 0.01; done";
    sandbox.sh(&format!("{KILL}; {serve}")).ok();
    for tool in [format!("{WITHOUT_PROGRAM}portmap"), "portmap".to_owned()] {
        let outcome = sandbox.sh(&format!("{tool} --repair < web.json > /dev/null"));
        assert_eq!(
            outcome.stderr,
            "portmap: hold host port 8080/tcp: it is taken by a process of the host\nhint: choose another host port\n"
        );
    }
    sandbox.sh("pkill socat").ok();
    assert!(can(&sandbox, "host", "TCP4-LISTEN:8080"), "what failed holds nothing");
    stop(&sandbox, "web");
    sandbox.assert_as(&before);
}

#[test]
fn a_port_on_which_another_program_listens_is_published_without_a_hold() {
    let sandbox = sandbox();
    let before = sandbox.snapshot();
    let serve = "socat TCP4-LISTEN:8080,fork /dev/null > /dev/null 2>&1 < /dev/null & until ss -Hlnt | grep -q :8080; do sleep 0.01; done";
    sandbox.sh(serve).ok();
    // As podman does, which listens itself and may join a network later.
    start(&sandbox, "web", "portmap -p 8080:80 --no-hold");
    assert_eq!(check(&sandbox, "web"), "");
    stop(&sandbox, "web");
    sandbox.sh("pkill socat").ok();
    sandbox.assert_as(&before);
}

#[test]
fn a_large_range_is_held_when_asked() {
    let sandbox = sandbox();
    let before = sandbox.snapshot();
    start(&sandbox, "web", "portmap -p 8000-8256:8000-8256 -p 9000-9255:9000-9255");
    for (port, expected) in [(8000, true), (8256, true), (9000, false), (9255, false)] {
        assert_eq!(can(&sandbox, "host", &format!("TCP4-LISTEN:{port}")), expected, "{port}");
    }
    assert_eq!(check(&sandbox, "web"), "");
    stop(&sandbox, "web");
    for prefix in ["", WITHOUT_PROGRAM] {
        start(&sandbox, "web", &format!("{prefix}portmap --hold -p 8000-8999:8000-8999"));
        for port in [8000, 8256, 8999] {
            assert!(!can(&sandbox, "host", &format!("TCP4-LISTEN:{port}")), "{prefix}{port}");
        }
        assert_eq!(check(&sandbox, "web"), "", "{prefix}");
        stop(&sandbox, "web");
    }
    sandbox.assert_as(&before);
}
