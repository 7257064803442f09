//! Names that share an address, told apart by the name in the TLS hello, with real TLS servers.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::*;
use testkit::{Has, NameServer, Sandbox, wait_for};

/// Gives the hello in the file `hello` another name, and with `encrypted` the extension of an encrypted hello. Also
/// writes it to `parts`, in records of seven bytes.
const EDIT: &str = r#"
import sys
hello = bytearray(open('hello', 'rb').read())
name, other = b'git.example', sys.argv[1].encode()
at = hello.index(name)
hello[at:at + len(name)] = other
def add(place, length, more):
    hello[place:place + length] = (int.from_bytes(hello[place:place + length], 'big') + more).to_bytes(length, 'big')
more = len(other) - len(name)
for place in (at - 2, at - 5, at - 7): add(place, 2, more)  # the name, the list, the extension
if 'encrypted' in sys.argv:
    hello += b'\xfe\x0d\x00\x01\x00'
    more += 5
add(3, 2, more); add(6, 3, more)  # the record, the message
session = 5 + 4 + 34; suites = session + 1 + hello[session]
compressions = suites + 2 + int.from_bytes(hello[suites:suites + 2], 'big')
add(compressions + 1 + hello[compressions], 2, more)  # all extensions
open(sys.argv[2], 'wb').write(hello)
message = bytes(hello[5:])
parts = [message[place:place + 7] for place in range(0, len(message), 7)]
open('parts', 'wb').write(b''.join(b'\x16\x03\x01' + len(part).to_bytes(2, 'big') + part for part in parts))
"#;

/// A host with servers outside. 198.51.100.1 has a TLS server for any name, which on port 8443 asks for a second
/// hello; 198.51.100.2 a server that answers with the sum of all bytes that it got, and 198.51.100.3 one that
/// closes at once. `hello` is a TLS hello for git.example.
fn tls() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.sh("echo 0 > /proc/sys/net/ipv4/ip_forward").ok();
    let hello = "import ssl; out = ssl.MemoryBIO(); tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname='git.example')
try: tls.do_handshake()
except ssl.SSLWantReadError: open('hello', 'wb').write(out.read())";
    sandbox
        .sh(&format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key -out certificate -subj /CN=git.example -days 2 2> /dev/null
             head -c 20000000 /dev/urandom > big; echo page > page; python3 -c \"{hello}\""
        ))
        .ok();
    std::fs::write(sandbox.directory().join("edit.py"), EDIT).unwrap();
    sandbox
        .outside(
            "for host in 1 2 3; do ip addr add 198.51.100.$host/32 dev lo; done
             serve() { openssl s_server -accept 198.51.100.1:$1 -cert certificate -key key -WWW $2 >/dev/null 2>&1 </dev/null & }
             serve 443; serve 8443 '-groups P-384'
             socat -t30 TCP4-LISTEN:443,bind=198.51.100.2,fork,reuseaddr EXEC:sha256sum >/dev/null 2>&1 </dev/null &
             socat TCP4-LISTEN:80,fork,reuseaddr SYSTEM:'read q; echo plain' >/dev/null 2>&1 </dev/null &
             until [ $(ss -Hlnt | grep -c -e ':443 ' -e ':8443 ' -e ':80 ') = 4 ]; do sleep 0.01; done",
        )
        .ok();
    sandbox
}

fn shared() -> Vec<(&'static str, Has)> {
    vec![
        ("git.example", addresses(&[1])),
        ("sum.git.example", addresses(&[2])),
        ("closed.git.example", addresses(&[3])),
        ("other.example", addresses(&[1])),
        ("www.debian.example", addresses(&[1])),
    ]
}

/// What the container gets from the TLS server, with this name in its hello.
fn page(sandbox: &Sandbox, name: &str, port: u16) -> String {
    let url = format!("--connect-to {name}:{port}:198.51.100.1:{port} https://{name}:{port}/page");
    sandbox.within("web", &format!("curl -sk --max-time 8 {url} || true")).ok().trim().to_owned()
}

/// How curl fails: `reset`, or what it says.
fn refused(sandbox: &Sandbox, url: &str) -> String {
    let outcome = sandbox.within("web", &format!("curl -sSk --max-time 8 {url}"));
    let text = outcome.stdout + &outcome.stderr;
    if text.contains("reset by peer") { "reset".to_owned() } else { text }
}

/// Asserts that the journal has one line with this text. Waits for it.
#[track_caller]
fn line(sandbox: &Sandbox, text: &str) {
    wait_for(text, Duration::from_secs(20), || {
        sandbox.sh(&format!("grep -c '{text}' /run/stave/egress/web.log")).stdout == "1\n"
    });
}

#[test]
fn only_listed_names_of_a_shared_address() {
    let sandbox = tls();
    let server = NameServer::start(&sandbox, &shared());
    let before = sandbox.snapshot();
    start(&sandbox, "--sni git.example '*.git.example' '*.debian.example:8443' 198.51.100.3");
    sandbox.sh("jq -e .egress.sni web.json > /dev/null").ok();
    assert_eq!(page(&sandbox, "git.example", 443), "", "before it has asked for the name");
    for name in ["git.example", "sum.git.example", "www.debian.example"] {
        assert_eq!(sandbox.resolve("web", name, "A").rcode, "NOERROR");
    }
    for (name, port, told) in [
        ("git.example", 443, "page"),
        ("GIT.Example", 443, "page"),
        ("other.example", 443, ""),
        // Listed, with another port, or without an answer that has this address.
        ("www.debian.example", 443, ""),
        ("sum.git.example", 443, ""),
        ("www.debian.example", 8443, "page"),
        ("git.example", 8443, ""),
    ] {
        assert_eq!(page(&sandbox, name, port), told, "{name} on port {port}");
    }
    // Without a name, without TLS, and on the other ports of a name without a port.
    assert_eq!(refused(&sandbox, "https://198.51.100.1/page"), "reset");
    assert_eq!(sandbox.ask("web", "TCP4:198.51.100.2:443"), "", "without TLS");
    assert_reaches(&sandbox, "198.51.100.1:80", false, "on another port");
    // A hello whose name is another one inside.
    sandbox.sh("python3 edit.py sum.git.example hello.encrypted encrypted").ok();
    let encrypted = sandbox.within("web", "socat -t8 - TCP4:198.51.100.2:443 < hello.encrypted");
    assert_eq!(encrypted.stdout, "", "{encrypted:?}");
    // A second hello with another name: not every server compares it.
    sandbox.sh("python3 edit.py sum.git.example one; python3 edit.py other.example two").ok();
    let twice = sandbox.within("web", "cat one two | socat -t8 - TCP4:198.51.100.2:443");
    assert_eq!(twice.stdout, "", "{twice:?}");
    // What is listed by address is not compared.
    assert_reaches(&sandbox, "198.51.100.3:80", true, "by its address");
    for text in [
        r#""verdict":"rejected","address":"198.51.100.1","port":443,"protocol":"tcp","sni":"other.example","reason":"another name in the TLS hello"}"#,
        r#""verdict":"rejected","address":"198.51.100.1","port":8443,"protocol":"tcp","sni":"git.example","reason":"another name in the TLS hello"}"#,
        r#""verdict":"rejected","address":"198.51.100.2","port":443,"protocol":"tcp","sni":"other.example","reason":"another name in the TLS hello"}"#,
        r#""verdict":"rejected","address":"198.51.100.1","port":443,"protocol":"tcp","reason":"no name in the TLS hello"}"#,
        r#""verdict":"rejected","address":"198.51.100.2","port":443,"protocol":"tcp","reason":"no TLS hello"}"#,
        r#""verdict":"rejected","address":"198.51.100.2","port":443,"protocol":"tcp","sni":"sum.git.example","reason":"encrypted TLS hello"}"#,
        r#""verdict":"rejected","address":"198.51.100.1","port":443,"protocol":"tcp"}"#,
        r#""verdict":"rejected","address":"198.51.100.1","port":80,"protocol":"tcp"}"#,
    ] {
        line(&sandbox, text);
    }
    let words = sandbox.sh("egress-log --arguments web").ok();
    assert!(words.contains("other.example:443\n") && words.contains("198.51.100.2:443\n"), "{words}");
    assert!(!server.asked().contains(&"A other.example".to_owned()));
    sandbox.sh("unwind web > /dev/null").ok();
    assert_as(&sandbox, &before);
}

#[test]
fn bytes_are_passed_on_as_they_are() {
    let sandbox = tls();
    NameServer::start(&sandbox, &shared());
    start(&sandbox, "--sni git.example '*.git.example'");
    for name in ["git.example", "sum.git.example", "closed.git.example"] {
        sandbox.resolve("web", name, "A");
    }
    // It says nothing, and is not waited for forever.
    let silent = "(socat -u TCP4:198.51.100.2:443 -; touch ended) >/dev/null 2>&1 </dev/null &";
    sandbox.within("web", silent).ok();
    let sum = |file: &str| sandbox.sh(&format!("sha256sum < {file}")).ok();
    let big = "curl -sk --connect-to git.example:443:198.51.100.1:443 https://git.example/big | sha256sum";
    assert_eq!(sandbox.within("web", big).ok(), sum("big"));
    // The hello of another name passes nowhere, so the server with the sum is asked under its own name.
    sandbox.sh("python3 edit.py sum.git.example hello").ok();
    // Early data, in records of TLS.
    let data = "import sys
for part in iter(lambda: sys.stdin.buffer.read(16384), b''): sys.stdout.buffer.write(b'\\x17\\x03\\x03' + len(part).to_bytes(2, 'big') + part)";
    sandbox
        .sh(&format!("python3 -c \"{data}\" < big > data; cat hello data > all; cat parts data > all.parts"))
        .ok();
    // The client ends first, and gets the answer after that.
    let send = "socat -t30";
    let server = "- TCP4:198.51.100.2:443,nodelay";
    assert_eq!(sandbox.within("web", &format!("{send} {server} < all")).ok(), sum("all"));
    assert_eq!(sandbox.within("web", &format!("{send} {server} < all.parts")).ok(), sum("all.parts"));
    // Byte by byte, each in its own segment.
    for file in ["hello", "parts"] {
        assert_eq!(sandbox.within("web", &format!("{send} -b1 {server} < {file}")).ok(), sum(file), "{file}");
    }
    // A server that is not there.
    let closed = "--connect-to closed.git.example:443:198.51.100.3:443 https://closed.git.example/";
    assert_eq!(refused(&sandbox, closed), "reset");
    // Many at once.
    let many = "yes https://git.example/page | head -n 60 | xargs -n1 -P60 curl -sk --max-time 20 --connect-to git.example:443:198.51.100.1:443";
    assert_eq!(sandbox.within("web", many).ok(), "page\n".repeat(60));
    wait_for("the end of the silent client", Duration::from_secs(20), || {
        sandbox.directory().join("ended").exists()
    });
    line(
        &sandbox,
        r#""verdict":"rejected","address":"198.51.100.2","port":443,"protocol":"tcp","reason":"no TLS hello"}"#,
    );
}

#[track_caller]
fn assert_missing(sandbox: &Sandbox, what: &str) {
    let told = sandbox.sh("egress-allow --check < web.json > /dev/null").exits(1).stderr;
    assert!(told.starts_with(&format!("egress-allow: missing: {what}\n")), "{told}");
}

/// With all rights in its own namespace, the container gets no further.
#[test]
fn nothing_in_the_container_lifts_it() {
    let sandbox = tls();
    NameServer::start(&sandbox, &shared());
    start(&sandbox, "--sni git.example");
    sandbox.resolve("web", "git.example", "A");
    sandbox.within("web", "nft delete table inet stave_sni").ok();
    assert_eq!(page(&sandbox, "git.example", 443), "", "without the table");
    assert_reaches(&sandbox, "198.51.100.1:443", false, "without the table");
    assert_missing(&sandbox, "table inet stave_sni in /run/netns/web");
    sandbox.sh("net-repair web > /dev/null 2>&1; egress-allow --check < web.json > /dev/null").ok();
    assert_eq!(page(&sandbox, "git.example", 443), "page");
    sandbox.within("web", "nft flush chain inet stave_sni output").ok();
    assert_missing(&sandbox, "rules of table inet stave_sni in /run/netns/web");
    sandbox.sh("egress-allow --repair < web.json > /dev/null").ok();
    assert_eq!(page(&sandbox, "git.example", 443), "page");
    // Killed, it passes nothing on until it is started again and the name is asked for.
    sandbox.sh("kill -9 $(pgrep -x egress-allow)").ok();
    assert_eq!(page(&sandbox, "git.example", 443), "", "without the process");
    sandbox.sh("net-repair web > /dev/null 2>&1").ok();
    sandbox.resolve("web", "git.example", "A");
    assert_eq!(page(&sandbox, "git.example", 443), "page");
    // A step that is undone leaves nothing in the container's namespace.
    sandbox.sh("egress-allow --undo < web.json > undone.json").ok();
    assert_eq!(sandbox.within("web", "nft list tables").ok(), "");
}

#[test]
fn with_log_everything_passes_and_is_told() {
    let sandbox = tls();
    NameServer::start(&sandbox, &shared());
    start(&sandbox, "--sni --log git.example");
    for name in ["git.example", "other.example"] {
        sandbox.resolve("web", name, "A");
        assert_eq!(page(&sandbox, name, 443), "page");
    }
    assert!(!hears(&sandbox, "?", "TCP4:198.51.100.2:443").is_empty(), "without TLS");
    line(
        &sandbox,
        r#""verdict":"logged","address":"198.51.100.1","port":443,"protocol":"tcp","sni":"other.example"}"#,
    );
    line(
        &sandbox,
        r#""verdict":"logged","address":"198.51.100.2","port":443,"protocol":"tcp","reason":"no TLS hello"}"#,
    );
    assert!(!sandbox.sh("grep git.example /run/stave/egress/web.log").stdout.contains("sni"));
    let words = sandbox.sh("egress-log --arguments web").ok();
    assert!(words.contains("other.example:443\n"), "{words}");
    // A record of an earlier version may have it on an internal network: the host does not connect for that.
    let end = "for p in /proc/[0-9]*; do [ \"$(cat $p/comm)\" = egress-allow ] && kill -9 ${p#/proc/}; done; while grep -qsx egress-allow /proc/[0-9]*/comm; do sleep 0.01; done";
    let edit = "jq -c '(.. | objects | select(.op? == \"egress-resolver\")).internal = true' $record > edited && cat edited > $record";
    sandbox.sh(&format!("{end}; record=/run/stave/web.json; {edit} && net-repair web")).ok();
    for name in ["git.example", "other.example"] {
        assert_eq!(page(&sandbox, name, 443), "", "{name}");
    }
    line(&sandbox, r#""verdict":"rejected","address":"198.51.100.1","port":443,"protocol":"tcp"}"#);
}

/// The container's own servers, and those of its neighbours, are reached as before.
#[test]
fn neighbours_are_not_compared() {
    let sandbox = tls();
    NameServer::start(&sandbox, &shared());
    sandbox.sh("netns-bridge -n --id db | veth-pair > db.json").ok();
    sandbox.serve("db", "TCP4-LISTEN:443", "db");
    sandbox.sh("netns-bridge -n --id web | veth-pair | egress-allow --sni db git.example | name-serve > web.json").ok();
    sandbox.serve("web", "TCP4-LISTEN:443", "web");
    assert_reaches(&sandbox, "172.17.0.2:443", false, "before it has asked for the name");
    sandbox.resolve("web", "db", "A");
    assert_reaches(&sandbox, "172.17.0.2:443", true, "then");
    for own in ["127.0.0.1", "172.17.0.3"] {
        assert_reaches(&sandbox, &format!("{own}:443"), true, "itself");
    }
    assert_eq!(sandbox.ask("db", "TCP4:172.17.0.3:443"), "web 172.17.0.2");
}

/// A name that leads to a container of another bridge, or to the host, opens neither.
#[test]
fn the_host_does_not_lend_its_way() {
    let sandbox = tls();
    let zone = [
        ("far.example", Has::Addresses(vec![[10, 7, 0, 2].into()], 60)),
        ("host.example", Has::Addresses(vec![testkit::HOST.parse().unwrap()], 60)),
    ];
    NameServer::start(&sandbox, &zone);
    sandbox.sh("netns-add -n --id far | bridge-attach far0 --subnet 10.7.0.0/24 > far.json").ok();
    let serve = "openssl s_server -accept 443 -cert certificate -key key -WWW >/dev/null 2>&1 </dev/null & until ss -Hlnt | grep -q ':443 '; do sleep 0.01; done";
    sandbox.within("far", serve).ok();
    sandbox.sh(serve).ok();
    start(&sandbox, "--sni '*.example'");
    for (name, address) in [("far.example", "10.7.0.2"), ("host.example", testkit::HOST)] {
        assert_eq!(sandbox.resolve("web", name, "A").records, 1, "{name}");
        let url = format!("--connect-to {name}:443:{address}:443 https://{name}/page");
        assert_eq!(refused(&sandbox, &url), "reset", "{name}");
        assert_eq!(
            sandbox.sh(&format!("curl -sk --max-time 8 {url}")).ok(),
            "page\n",
            "the server of {name}"
        );
    }
}

#[test]
fn ipv6_is_compared_as_well() {
    let sandbox = tls();
    let shared: Vec<_> = ["git.example", "other.example"]
        .map(|name| (name, Has::Addresses(vec!["2001:db8:1::1".parse().unwrap()], 60)))
        .to_vec();
    sandbox
        .sh("ip address add 2001:db8::1/64 dev out0 nodad; ip route add default via 2001:db8::2 2> /dev/null || true; ip -6 route add 2001:db8:1::/64 via 2001:db8::2")
        .ok();
    sandbox
        .outside("ip address add 2001:db8::2/64 dev eth0 nodad; ip address add 2001:db8:1::1/128 dev lo nodad
             openssl s_server -accept '[2001:db8:1::1]:443' -cert certificate -key key -WWW >/dev/null 2>&1 </dev/null &
             until ss -6Hlnt | grep -q ':443 '; do sleep 0.01; done")
        .ok();
    NameServer::start(&sandbox, &shared);
    let before = sandbox.snapshot();
    sandbox
        .sh("netns-add -n --id web | bridge-attach front --subnet 10.5.0.0/24 --subnet6 fd01:5::/64 | egress-allow --sni git.example > web.json")
        .ok();
    let page = |name: &str| {
        let url = format!("--connect-to '{name}:443:[2001:db8:1::1]:443' https://{name}/page");
        sandbox.within("web", &format!("curl -6sk --max-time 8 {url} || true")).ok()
    };
    assert_eq!(page("git.example"), "");
    assert_eq!(sandbox.resolve("web", "git.example", "AAAA").records, 1);
    assert_eq!((page("git.example").as_str(), page("other.example").as_str()), ("page\n", ""));
    sandbox.sh("egress-allow --check < web.json > /dev/null; unwind web > /dev/null").ok();
    assert_as(&sandbox, &before);
}

/// The commands of --explain make the same table.
#[test]
fn the_explanation_makes_the_same_table() {
    let sandbox = tls();
    let list = "--sni git.example '*.debian.example:8443' 10.0.0.0/8 10.1.2.3:443 0.0.0.0/0:123/udp 0.0.0.0/0:7 198.51.100.4:80 time.example:123/udp";
    let make = "netns-bridge -n --id web | veth-pair > pair.json";
    sandbox.sh(make).ok();
    let explained = sandbox.sh(&format!("egress-allow --explain {list} < pair.json")).ok();
    sandbox.sh(&format!("egress-allow {list} < pair.json > web.json")).ok();
    let listed = || sandbox.within("web", "nft -s list table inet stave_sni").ok();
    let ours = listed();
    assert!(ours.contains("tcp") && ours.contains("8443"), "{ours}");
    sandbox.sh("egress-allow --undo < web.json > /dev/null").ok();
    let lines: String = explained
        .lines()
        .filter(|line| line.starts_with("nsenter --net=/run/netns/web nft "))
        .flat_map(|line| [line, "\n"])
        .collect();
    sandbox.sh(&lines).ok();
    assert_eq!(ours, listed());
}

/// Killed at any moment, it leaves a record from which everything can be undone.
#[test]
fn nothing_is_left_of_one_that_was_killed() {
    let sandbox = Sandbox::new();
    sandbox.sh("netns-bridge -n --id keeper | veth-pair > keeper.json").ok();
    let before = sandbox.snapshot();
    for step in 0..8 {
        let kill = format!("timeout -s KILL 0.{:04} egress-allow --sni a.example 10.0.0.0/8", 5 + step * 10);
        sandbox
            .sh(&format!("netns-bridge -n --id web | veth-pair | {kill} > web.json; unwind web > /dev/null"))
            .ok();
        let undo =
            format!("timeout -s KILL 0.{:04} egress-allow --undo < web.json > /dev/null", 5 + step * 10);
        sandbox
            .sh(&format!("netns-bridge -n --id web | veth-pair | egress-allow --sni a.example > web.json; {undo}; unwind web > /dev/null"))
            .ok();
        sandbox.assert_as(&before);
    }
}

#[test]
fn what_cannot_be_compared_is_said() {
    let sandbox = Sandbox::new();
    sandbox.sh("netns-bridge -n --id web | veth-pair > pair.json").ok();
    let command = "egress-allow --sni 10.0.0.0/8 time.example:123/udp < pair.json > /dev/null";
    assert_eq!(
        sandbox.sh(command).exits(1).stderr,
        "egress-allow: --sni: the list has no name with a TCP port\nhint: --sni compares names only, not addresses\n"
    );
    // The process would connect for the container from the host.
    sandbox
        .sh("netns-add -n --id quiet | bridge-attach quiet --subnet 10.6.0.0/24 --internal > quiet.json")
        .ok();
    let command = "egress-allow --log --sni git.example < quiet.json > /dev/null";
    assert_eq!(
        sandbox.sh(command).exits(1).stderr,
        "egress-allow: --sni: the container's networks are internal, and no name opens an address\n"
    );
}
