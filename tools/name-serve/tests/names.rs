//! Containers that find each other by name, with a real name server behind the resolver.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use testkit::{Has, NameServer, Sandbox, wait_for};

/// `web` on two networks, `db` and `db2` on one of them, and `other` on a different one.
fn start(sandbox: &Sandbox) {
    let back = "back0 --subnet 10.5.0.0/24";
    for (id, networks, names) in [
        ("db", format!("bridge-attach {back}"), "name-serve --network-alias data --network-alias Store"),
        ("db2", format!("bridge-attach {back}"), "name-serve --network-alias data"),
        (
            "web",
            format!("bridge-attach | bridge-attach {back}"),
            "link-hosts --link db:database | name-serve",
        ),
        ("other", "bridge-attach other0 --subnet 10.6.0.0/24".to_owned(), "name-serve"),
    ] {
        sandbox.sh(&format!("netns-add -n --id {id} | {networks} | {names} > {id}.json")).ok();
    }
}

/// The answer on one line: the code, and the addresses.
fn ask(sandbox: &Sandbox, id: &str, name: &str, how: &str) -> String {
    let answer = sandbox.resolve(id, name, how);
    let mut addresses: Vec<_> = answer.addresses.iter().map(|(address, _)| address.to_string()).collect();
    addresses.sort();
    std::iter::once(answer.rcode).chain(addresses).collect::<Vec<_>>().join(" ")
}

/// Each row: the container, the name, how it asks, and the answer in the form of [`ask`].
#[track_caller]
fn assert_answers(sandbox: &Sandbox, answers: &[(&str, &str, &str, &str)]) {
    for (id, name, how, answer) in answers {
        assert_eq!(ask(sandbox, id, name, how), *answer, "{id} asks for {name} {how}");
    }
}

fn server(sandbox: &Sandbox) -> NameServer {
    let address = |host: u8| Has::Addresses(vec![[198, 51, 100, host].into()], 60);
    NameServer::start(
        sandbox,
        &[("web.example", address(1)), ("many.example", Has::Many(150)), ("silent.example", Has::Silence)],
    )
}

#[test]
fn containers_know_each_other_by_name() {
    let sandbox = Sandbox::new();
    let server = server(&sandbox);
    let before = sandbox.snapshot();
    start(&sandbox);
    let answers = [
        ("web", "db", "A", "NOERROR 10.5.0.2"),
        ("web", "DB", "edns A", "NOERROR 10.5.0.2"),
        ("web", "db", "tcp A", "NOERROR 10.5.0.2"),
        ("web", "db", "AAAA", "NOERROR"),
        ("web", "db", "TXT", "NOERROR"),
        ("web", "store", "A", "NOERROR 10.5.0.2"),
        ("web", "database", "A", "NOERROR 10.5.0.2"),
        ("web", "data", "A", "NOERROR 10.5.0.2 10.5.0.3"),
        ("web", "db.back0", "A", "NOERROR 10.5.0.2"),
        ("web", "nobody.back0", "A", "NXDOMAIN"),
        ("web", "web", "A", "NOERROR 10.5.0.4 172.17.0.2"),
        ("db", "web", "A", "NOERROR 10.5.0.4"),
        ("db", "database", "A", "NXDOMAIN"),
        ("other", "db", "A", "NXDOMAIN"),
        ("other", "web", "A", "NXDOMAIN"),
        ("db", "web.example", "A", "NOERROR 198.51.100.1"),
        ("db", "2.0.5.10.in-addr.arpa", "PTR", "NOERROR"),
        ("db", "77.0.5.10.in-addr.arpa", "PTR", "NXDOMAIN"),
    ];
    assert_answers(&sandbox, &answers);
    assert_eq!(sandbox.resolve("db", "2.0.5.10.in-addr.arpa", "PTR").records, 3);
    // Names of containers that are answered here are not forwarded, and nobody.back0 may be a name in DNS.
    let passed = server.asked();
    assert_eq!(passed, ["A nobody.back0", "A database", "A db", "A web", "A web.example"]);
    // The addresses of several containers take turns at the first place.
    let mut first: Vec<_> =
        (0..4).map(|_| sandbox.resolve("web", "data", "A").addresses[0].0.to_string()).collect();
    first.sort();
    assert_eq!(first, ["10.5.0.2", "10.5.0.2", "10.5.0.3", "10.5.0.3"]);
    // A recreated container has its name at once.
    sandbox.sh("unwind db > /dev/null; netns-add -n --id filler | bridge-attach back0 > filler.json; netns-add -n --id db | bridge-attach back0 > db.json").ok();
    assert_eq!(ask(&sandbox, "web", "db", "A"), "NOERROR 10.5.0.6");
    assert_eq!(ask(&sandbox, "web", "data", "A"), "NOERROR 10.5.0.3");
    sandbox.sh("jq -e '.names == {resolver: \"127.0.0.11\"}' web.json > /dev/null").ok();
    sandbox.sh("unwind web db db2 filler > /dev/null").ok();
    assert_eq!(resolvers(&sandbox), 1);
    sandbox.sh("unwind other > /dev/null").ok();
    sandbox.assert_as(&before);
}

/// A forwarded query carries a name out of the network, with whatever the container writes into it.
#[test]
fn nothing_leaves_an_internal_network_by_a_question() {
    let sandbox = Sandbox::new();
    let server = server(&sandbox);
    let inside = "bridge-attach inside0 --subnet 10.7.0.0/24 --internal";
    for (id, networks) in [("db", inside.to_owned()), ("web", format!("{inside} | bridge-attach"))] {
        sandbox.sh(&format!("netns-add -n --id {id} | {networks} | name-serve > {id}.json")).ok();
    }
    let answers = [
        ("db", "web", "A", "NOERROR 10.7.0.3"),
        ("db", "secret.web.example", "A", "NXDOMAIN"),
        ("db", "web.example", "edns A", "NXDOMAIN"),
        ("db", "web.example", "tcp A", "NXDOMAIN"),
        ("db", "1.100.51.198.in-addr.arpa", "PTR", "NXDOMAIN"),
        // A container with another network may send queries out.
        ("web", "web.example", "A", "NOERROR 198.51.100.1"),
    ];
    assert_answers(&sandbox, &answers);
    let listed = format!("netns-add -n --id listed | {inside} | egress-allow '*.example' > listed.json");
    sandbox.sh(&listed).ok();
    assert_eq!(ask(&sandbox, "listed", "secret.web.example", "A"), "NXDOMAIN");
    assert_eq!(server.asked(), ["A web.example"]);
    sandbox.sh("unwind web db listed > /dev/null").ok();
}

fn resolvers(sandbox: &Sandbox) -> usize {
    sandbox.sh("cat /proc/[0-9]*/comm | grep -c name-serve").stdout.trim().parse().unwrap()
}

/// The process may be killed at any time: it knows only what is in the records.
#[test]
fn one_resolver_answers_for_all_and_is_started_again() {
    let sandbox = Sandbox::new();
    server(&sandbox);
    start(&sandbox);
    assert_eq!(resolvers(&sandbox), 1);
    let kill = "kill -9 $(for p in /proc/[0-9]*; do [ \"$(cat $p/comm)\" = name-serve ] && echo ${p#/proc/}; done); while grep -qsx name-serve /proc/[0-9]*/comm; do sleep 0.01; done";
    sandbox.sh(kill).ok();
    // A query fails at once.
    assert_eq!(ask(&sandbox, "web", "db", "A"), "");
    let missing = sandbox.sh("name-serve --check < web.json > /dev/null").exits(1);
    assert!(missing.stderr.starts_with("name-serve: missing: names of \"web\"\n"), "{}", missing.stderr);
    sandbox.sh("name-serve --repair < web.json > /dev/null").ok();
    assert_eq!(ask(&sandbox, "web", "db", "A"), "NOERROR 10.5.0.2");
    sandbox.sh("net-repair --all").ok();
    assert_eq!(ask(&sandbox, "db2", "web", "A"), "NOERROR 10.5.0.4");
    assert_eq!(resolvers(&sandbox), 1);
    sandbox.sh("net-guard 2> guard.log > /dev/null < /dev/null & echo $! > guard.pid; sleep 0.3").ok();
    // The resolver is restarted before anybody could notice that it was gone.
    sandbox.sh(kill.split("; while").next().unwrap()).ok();
    wait_for("the resolver", Duration::from_secs(60), || {
        sandbox.sh("grep -q restored guard.log").status == 0
    });
    for (id, name) in [("web", "db"), ("db2", "web")] {
        assert!(ask(&sandbox, id, name, "A").starts_with("NOERROR 10.5.0."), "{id}");
    }
    assert_eq!(ask(&sandbox, "web", "many.example", "tcp A").split(' ').count(), 151);
    sandbox.sh("kill $(cat guard.pid)").ok();
    sandbox.sh("unwind web db db2 other > /dev/null; ! grep -l name-serve /proc/[0-9]*/comm").ok();
}

/// Nobody would use that process, and it would stay for a minute.
#[test]
fn a_resolver_whose_tool_was_killed_before_it_gave_it_a_container_ends_with_the_container() {
    let sandbox = Sandbox::new();
    let killed =
        "timeout 3 strace -I 2 -f -qq -o trace -e trace=sendmsg -e inject=sendmsg:signal=KILL:when=1";
    sandbox.sh(&format!(
        "netns-add -n --id web | bridge-attach back --subnet 10.5.0.0/24 | {killed} name-serve > web.json"
    ));
    sandbox.sh("grep 'killed by SIGKILL' trace").ok();
    assert_eq!(resolvers(&sandbox), 1);
    sandbox.sh("unwind web > /dev/null").ok();
    wait_for("its end", Duration::from_secs(10), || resolvers(&sandbox) == 0);
}

#[test]
fn what_cannot_be_is_said() {
    let sandbox = Sandbox::new();
    sandbox.sh("netns-add -n --id web | bridge-attach > web.json; egress-allow a.example < web.json > listed.json").ok();
    let said = sandbox.sh("netns-add -n --id half | name-serve > out.json").exits(1);
    assert_eq!(
        said.stderr.lines().next(),
        Some(
            "name-serve: no `networks`: run bridge-attach, macvlan-attach, ipvlan-attach or veth-pair first"
        )
    );
    let usage = sandbox.sh("name-serve --network-alias 'a b' < listed.json > out.json").exits(2);
    assert!(usage.stderr.contains("a name has letters, digits, `-` and `_`"), "{}", usage.stderr);
    sandbox.sh("name-serve < listed.json > both.json").ok();
    for (command, said) in [
        (
            "egress-allow --undo < both.json",
            "egress-allow: take the list back: its resolver answers the names of name-serve",
        ),
        ("name-serve --undo < both.json", ""),
        (
            "name-serve --dns 192.0.2.9 < listed.json",
            "name-serve: --dns: the resolver of egress-allow asks for the other names",
        ),
    ] {
        let told = sandbox.sh(&format!("{command} > out.json")).stderr;
        assert_eq!(told.lines().next().unwrap_or_default(), said, "{command}");
    }
    sandbox.sh("egress-allow --undo < listed.json > web.json; name-serve < web.json > named.json").ok();
    let listed = sandbox.sh("egress-allow a.example < named.json > out.json").exits(1);
    assert!(
        listed.stderr.starts_with(
            "egress-allow: the container has the names of name-serve, which answers for every name\n"
        ),
        "{}",
        listed.stderr
    );
    let dns = sandbox.sh("ns-exec --rootfs / --dns 192.0.2.9 -- true < named.json").exits(125);
    assert!(
        dns.stderr.contains("--dns has no effect: the container uses its own resolver"),
        "{}",
        dns.stderr
    );
}

/// Many programs run as nobody, also in containers that see the host's processes.
#[test]
fn programs_of_nobody_do_not_stop_the_resolver() {
    let sandbox = Sandbox::new();
    start(&sandbox);
    let pid = sandbox.sh("ss -xlpH | grep @stave/names/ | grep -o 'pid=[0-9]*' | sort -u").ok();
    let pid = pid.trim().strip_prefix("pid=").unwrap();
    let told = "setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all sh -c";
    sandbox.sh(&format!("{told} 'kill -9 {pid}'")).exits(1);
    let own = "1207959551";
    let seen = sandbox.sh(&format!("awk '/^[UG]id|^Groups/ {{ print $2 }}' /proc/{pid}/status")).ok();
    assert_eq!(seen, format!("{own}\n{own}\n\n"));
    assert_answers(&sandbox, &[("web", "db", "A", "NOERROR 10.5.0.2")]);
    sandbox.sh("unwind web db db2 other > /dev/null").ok();
}
