//! stave-netavark, called by podman and by hand.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use serde_json::{Value, json};
use testkit::{Has, NameServer, PODMAN_RUN, Sandbox, wait_for};

fn options(more: &Value) -> Value {
    let mut network = json!({"name": "web", "id": "1", "driver": "bridge", "network_interface": "podman1", "internal": false,
        "ipv6_enabled": false, "dns_enabled": false, "subnets": [{"subnet": "10.5.0.0/24", "gateway": "10.5.0.1"}]});
    network.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"container_id": "abc", "container_name": "one",
        "networks": {"web": {"interface_name": "eth0", "static_ips": ["10.5.0.9"]}}, "network_info": {"web": network},
        "port_mappings": [{"container_port": 80, "host_ip": "", "host_port": 8080, "protocol": "tcp,udp", "range": 2}]})
}

fn netavark(sandbox: &Sandbox, command: &str, options: &Value) -> (i32, Value) {
    let outcome =
        sandbox.sh_with(&format!("stave-netavark {command} /run/netns/one"), options.to_string().as_bytes());
    (outcome.status, serde_json::from_str(&outcome.stdout).unwrap_or(Value::Null))
}

#[test]
fn set_up_and_torn_down() {
    let sandbox = Sandbox::new();
    sandbox.sh("ip netns add one; echo 0 > /proc/sys/net/ipv4/ip_forward").ok();
    let before = sandbox.snapshot();
    let (status, result) = netavark(&sandbox, "setup", &options(&json!({})));
    let mac = "02:42:0a:05:00:09";
    let interface = json!({"mac_address": mac, "subnets": [{"ipnet": "10.5.0.9/24", "gateway": "10.5.0.1"}]});
    let expected =
        json!({"web": {"dns_search_domains": [], "dns_server_ips": [], "interfaces": {"eth0": interface}}});
    assert_eq!((status, result), (0, expected));
    // No neighbour gives it an address or a route of IPv6 by a router advertisement.
    assert_eq!(sandbox.within("one", "ip -6 address show eth0; ip -6 route show dev eth0").ok(), "");
    sandbox.serve("one", "TCP4-LISTEN:81", "one");
    assert_eq!(sandbox.ask("host", "TCP4:127.0.0.1:8081"), "one 10.5.0.1", "the second port of the range");
    sandbox.sh("pkill -P 1 socat || true").ok();
    // Since netavark 2, the networks may be a list.
    let mut list = options(&json!({}));
    list["networks"] = json!([{"name": "web", "interface_name": "eth0", "static_ips": ["10.5.0.9"]}]);
    for _ in 0..2 {
        assert_eq!(netavark(&sandbox, "teardown", &list), (0, Value::Null));
    }
    let (status, result) = netavark(&sandbox, "setup", &list);
    assert_eq!((status, &result["web"]["interfaces"]["eth0"]["mac_address"]), (0, &json!(mac)));
    assert_eq!(netavark(&sandbox, "teardown", &options(&json!({}))), (0, Value::Null));
    assert_eq!(sandbox.difference(&before), "");
    for (more, message) in [
        (
            json!({"routes": [{"destination": "10.9.0.0/24", "route_type": "throw"}]}),
            "network \"web\": the route to 10.9.0.0/24 is not supported: its type is \"throw\"",
        ),
        (
            json!({"driver": "ptp"}),
            "network \"web\": driver \"ptp\" is not supported, only bridge, macvlan and ipvlan",
        ),
        (
            json!({"ipam_options": {"driver": "dhcp"}}),
            "network \"web\": ipam driver \"dhcp\" is not supported, only host-local and none",
        ),
        (
            json!({"driver": "macvlan", "network_interface": "out0", "options": {"bclim": "3"}}),
            "network \"web\": option \"bclim\" with value \"3\" is not supported",
        ),
        (
            json!({"options": {"vlan": "7"}}),
            "network \"web\": option \"vlan\" with value \"7\" is not supported",
        ),
        (
            json!({"options": {"vrf": "red"}}),
            "network \"web\": option \"vrf\" with value \"red\" is not supported",
        ),
        (
            json!({"options": {"isolate": "false"}}),
            "network \"web\": option \"isolate\" with value \"false\" is not supported",
        ),
        (
            json!({"options": {"metric": "-1"}}),
            "network \"web\": option \"metric\" with value \"-1\" is not a number",
        ),
        (
            json!({"options": {"mode": "unmanaged"}}),
            "no port can be published: this host is the gateway of no network of the container",
        ),
        (
            json!({"subnets": [{"subnet": "10.6.0.0/24", "gateway": "10.6.0.1"}]}),
            "bridge-attach: address 10.5.0.9 is not in subnet 10.6.0.0/24",
        ),
    ] {
        let (status, result) = netavark(&sandbox, "setup", &options(&more));
        assert_eq!((status, &result["error"]), (1, &json!(message)));
        assert_eq!(sandbox.difference(&before), "", "{message}");
    }
}

/// A container with an address on each of these networks, and names on all of them.
fn named(name: &str, networks: &[(&str, &str)], more: &Value) -> Value {
    let (mut interfaces, mut info) = (json!({}), json!({}));
    for (at, (network, address)) in networks.iter().enumerate() {
        let subnet = address.rsplit_once('.').unwrap().0;
        interfaces[network] = json!({"interface_name": format!("eth{at}"), "static_ips": [address], "aliases": [format!("{name}-alias"), format!("{name}-{network}"), "77"]});
        info[network] = json!({"name": network, "driver": "bridge", "network_interface": format!("br-{network}"), "internal": false, "dns_enabled": true,
            "subnets": [{"subnet": format!("{subnet}.0/24"), "gateway": format!("{subnet}.1")}], "network_dns_servers": ["127.0.0.9"]});
    }
    let mut options = json!({"container_id": format!("id-{name}"), "container_name": name, "networks": interfaces, "network_info": info});
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    options
}

#[test]
fn names_and_the_name_servers_of_a_network() {
    let sandbox = Sandbox::new();
    let zone = [("git.example", Has::Addresses(vec![[198, 51, 100, 1].into()], 60))];
    NameServer::start(&sandbox, &zone);
    sandbox.sh("for name in one two own; do ip netns add $name; done").ok();
    let before = sandbox.snapshot();
    let call = |command: &str, name: &str, options: &Value| {
        let line = format!("stave-netavark {command} /run/netns/{name}");
        let outcome = sandbox.sh_with(&line, options.to_string().as_bytes()).ok();
        serde_json::from_str::<Value>(&outcome).unwrap_or(Value::Null)
    };
    let one = named("one", &[("web", "10.5.0.2"), ("back", "10.6.0.2")], &json!({}));
    let two = named("two", &[("back", "10.6.0.3")], &json!({}));
    let own = named("own", &[("web", "10.5.0.4")], &json!({"dns_servers": ["127.0.0.9"]}));
    let told = call("setup", "one", &one);
    assert_eq!(told["web"]["dns_search_domains"], json!(["dns.podman"]));
    // A namespace has one resolver.
    assert_eq!(
        (&told["web"]["dns_server_ips"], &told["back"]["dns_server_ips"]),
        (&json!(["127.0.0.11"]), &json!([]))
    );
    assert_eq!(call("setup", "two", &two)["back"]["dns_server_ips"], json!(["127.0.0.11"]));
    call("setup", "own", &own);
    let finds = |table: &[(&str, &str, &str)]| {
        for (asker, name, found) in table {
            let answer = sandbox.resolve(asker, name, "A");
            let addresses: Vec<_> = answer.addresses.iter().map(|(address, _)| address.to_string()).collect();
            let told = if addresses.is_empty() { answer.rcode } else { addresses.join(" ") };
            assert_eq!(told, *found, "{asker} asks for {name}");
        }
    };
    finds(&[
        ("one", "two", "10.6.0.3"),
        ("two", "one", "10.6.0.2"),
        ("two", "ONE-alias", "10.6.0.2"),
        // An alias is of one network, also that of a network whose record does not serve.
        ("two", "one-back", "10.6.0.2"),
        ("two", "one-web", "SERVFAIL"),
        // In the domain that podman writes into the container's resolv.conf.
        ("two", "one.dns.podman", "10.6.0.2"),
        ("two", "One-back.DNS.podman", "10.6.0.2"),
        ("two", "one-web.dns.podman", "NXDOMAIN"),
        ("one", "git.example.dns.podman", "NXDOMAIN"),
        ("own", "one-web", "10.5.0.2"),
        ("own", "one-back", "SERVFAIL"),
        ("own", "one", "10.5.0.2"),
        ("one", "own", "10.5.0.4"),
        // It shares no network with this one, and nobody answers at 127.0.0.9 on the host.
        ("two", "own", "SERVFAIL"),
        ("one", "git.example", "SERVFAIL"),
        ("own", "git.example", "SERVFAIL"),
    ]);
    let update = |arguments: &str| sandbox.sh(&format!("stave-netavark update {arguments}"));
    assert_eq!(update("web --network-dns-servers 192.0.2.2,127.0.0.9").ok(), "");
    // The network changes, and a container with name servers of its own keeps these.
    finds(&[
        ("one", "git.example", "198.51.100.1"),
        ("one", "two", "10.6.0.3"),
        ("two", "git.example", "SERVFAIL"),
        ("own", "git.example", "SERVFAIL"),
    ]);
    update("back --network-dns-servers ''").ok();
    finds(&[("two", "git.example", "198.51.100.1"), ("two", "one", "10.6.0.2")]);
    update("nothing --network-dns-servers 192.0.2.2").ok();
    let refused = update("web --network-dns-servers 192.0.2").exits(1).stdout;
    assert_eq!(
        refused,
        "{\"error\":\"update the name servers of a network: \\\"192.0.2\\\": invalid IP address syntax\"}\n"
    );
    sandbox.sh("net-repair --all 2>&1 | grep -q 'nothing is missing'").ok();
    // It leaves the network whose record has the names, and another one serves them.
    call("teardown", "one", &named("one", &[("web", "10.5.0.2")], &json!({})));
    // With the name servers that this one got while it did not serve.
    finds(&[("one", "two", "10.6.0.3"), ("own", "one", "SERVFAIL"), ("one", "git.example", "198.51.100.1")]);
    for (name, options) in [("one", &one), ("two", &two), ("own", &own)] {
        assert_eq!(call("teardown", name, options), Value::Null);
    }
    assert_eq!(sandbox.difference(&before), "");
}

/// As netavark, it also attaches containers to the host's wire. No ports are published there.
#[test]
fn on_the_hosts_wire() {
    let sandbox = Sandbox::new();
    sandbox.sh("ip netns add one").ok();
    let before = sandbox.snapshot();
    let mut options =
        options(&json!({"driver": "macvlan", "network_interface": "", "options": {"mode": "private"},
        "subnets": [{"subnet": "192.0.2.0/24", "gateway": "192.0.2.2"}]}));
    options["networks"]["web"]["static_ips"] = json!(["192.0.2.9"]);
    let (status, refused) = netavark(&sandbox, "setup", &options);
    let told = "no port can be published: this host is the gateway of no network of the container";
    assert_eq!((status, &refused["error"]), (1, &json!(told)));
    assert_eq!(sandbox.difference(&before), "");
    options["port_mappings"] = Value::Null;
    let (status, result) = netavark(&sandbox, "setup", &options);
    let interface = json!({"mac_address": "02:42:c0:00:02:09", "subnets": [{"ipnet": "192.0.2.9/24", "gateway": "192.0.2.2"}]});
    assert_eq!((status, &result["web"]["interfaces"]["eth0"]), (0, &interface), "{result}");
    let shown = sandbox.sh("ip -n one -d link show eth0").ok();
    assert!(shown.contains("macvlan mode private"), "{shown}");
    sandbox.serve("one", "TCP4-LISTEN:80", "one");
    assert_eq!(sandbox.ask("outside", "TCP4:192.0.2.9:80"), "one 192.0.2.2");
    sandbox.sh("pkill -P 1 socat || true").ok();
    assert_eq!(netavark(&sandbox, "teardown", &options), (0, Value::Null));
    assert_eq!(sandbox.difference(&before), "");
}

/// The ports of a container with several networks are published by one that the answers leave by.
#[test]
fn ports_are_published_where_the_way_out_is() {
    let sandbox = Sandbox::new();
    sandbox.sh("ip netns add one").ok();
    let before = sandbox.snapshot();
    let ports =
        json!([{"container_port": 80, "host_ip": "", "host_port": 8080, "protocol": "tcp", "range": 1}]);
    let mut options =
        named("one", &[("quiet", "10.5.0.2"), ("web", "10.6.0.2")], &json!({"port_mappings": ports}));
    options["network_info"]["quiet"]["subnets"] = json!([{"subnet": "10.5.0.0/24"}]);
    assert_eq!(netavark(&sandbox, "setup", &options).0, 0, "the first network has no gateway");
    sandbox.serve("one", "TCP4-LISTEN:80", "one");
    assert_eq!(sandbox.ask("outside", "TCP4:192.0.2.1:8080"), "one 192.0.2.2");
    sandbox.sh("pkill -P 1 socat || true").ok();
    assert_eq!(netavark(&sandbox, "teardown", &options), (0, Value::Null));
    let wire = json!({"name": "quiet", "driver": "macvlan", "network_interface": "out0", "internal": false,
        "dns_enabled": false, "subnets": [{"subnet": "192.0.2.0/24", "gateway": "192.0.2.2"}]});
    options["network_info"]["quiet"] = wire;
    options["networks"]["quiet"]["static_ips"] = json!(["192.0.2.9"]);
    let told = "no port can be published: the default route of the container is by network \"quiet\", whose gateway is not this host";
    let (status, result) = netavark(&sandbox, "setup", &options);
    assert_eq!((status, &result["error"]), (1, &json!(told)));
    assert_eq!(sandbox.difference(&before), "");
}

#[test]
fn both_versions_of_ip_and_a_gateway_somewhere() {
    let sandbox = Sandbox::new();
    sandbox.sh("ip netns add one").ok();
    let before = sandbox.snapshot();
    let subnets = json!({"ipv6_enabled": true, "subnets": [{"subnet": "10.5.0.0/24", "gateway": "10.5.0.254"},
        {"subnet": "fd01:5::/64", "gateway": "fd01:5::ff"}]});
    let mut options = options(&subnets);
    options["networks"]["web"]["static_ips"] = json!(["10.5.0.9", "fd01:5::9"]);
    let (status, result) = netavark(&sandbox, "setup", &options);
    let told = json!([{"ipnet": "10.5.0.9/24", "gateway": "10.5.0.254"}, {"ipnet": "fd01:5::9/64", "gateway": "fd01:5::ff"}]);
    assert_eq!((status, &result["web"]["interfaces"]["eth0"]["subnets"]), (0, &told), "{result}");
    sandbox.serve("one", "TCP6-LISTEN:81", "one");
    // If a neighbour has not answered the first solicitation, the kernel asks again after a second.
    let from_the_gateway = "one [fd01:0005:0000:0000:0000:0000:0000:00ff]";
    wait_for("an answer", std::time::Duration::from_secs(10), || {
        sandbox.ask("host", "TCP6:[fd01:5::9]:81").starts_with(from_the_gateway)
    });
    sandbox.sh("pkill -P 1 socat || true").ok();
    assert_eq!(netavark(&sandbox, "teardown", &options), (0, Value::Null));
    assert_eq!(sandbox.difference(&before), "");
}

#[test]
fn a_network_of_ipv6_only() {
    let sandbox = Sandbox::new();
    sandbox.sh("ip netns add one").ok();
    let before = sandbox.snapshot();
    let subnets = json!([{"subnet": "fd01:5::/64", "gateway": "fd01:5::1"}]);
    let mut options = options(&json!({"ipv6_enabled": true, "subnets": subnets}));
    options["networks"]["web"]["static_ips"] = json!(["fd01:5::9"]);
    let (status, result) = netavark(&sandbox, "setup", &options);
    let told = json!([{"ipnet": "fd01:5::9/64", "gateway": "fd01:5::1"}]);
    assert_eq!((status, &result["web"]["interfaces"]["eth0"]["subnets"]), (0, &told), "{result}");
    sandbox.serve("one", "TCP6-LISTEN:81", "one");
    let from_the_gateway = "one [fd01:0005:0000:0000:0000:0000:0000:0001]";
    wait_for("an answer", std::time::Duration::from_secs(10), || {
        sandbox.ask("host", "TCP6:[fd01:5::1]:8081").starts_with(from_the_gateway)
    });
    sandbox.sh("pkill -P 1 socat || true").ok();
    assert_eq!(netavark(&sandbox, "teardown", &options), (0, Value::Null));
    // On the host's wire.
    let wire =
        json!({"driver": "macvlan", "network_interface": "out0", "subnets": subnets, "ipv6_enabled": true});
    options["network_info"]["web"].as_object_mut().unwrap().extend(wire.as_object().unwrap().clone());
    options["port_mappings"] = Value::Null;
    let (status, result) = netavark(&sandbox, "setup", &options);
    assert_eq!((status, &result["web"]["interfaces"]["eth0"]["subnets"]), (0, &told), "{result}");
    assert_eq!(sandbox.sh("ip -n one -4 addr show eth0").ok(), "");
    assert_eq!(netavark(&sandbox, "teardown", &options), (0, Value::Null));
    assert_eq!(sandbox.difference(&before), "");
}

#[test]
fn podman_uses_it() {
    let sandbox = Sandbox::new();
    sandbox.sh("mkdir -p bin net.d && ln -s $(command -v stave-netavark) bin/netavark").ok();
    let network = "network_backend = \"netavark\"\nnetwork_config_dir = \"$PWD/net.d\"";
    sandbox.prepare_podman(network, "helper_binaries_dir = [\"$PWD/bin\"]");
    let sh = |line: &str| sandbox.podman(line).ok();
    sh(&format!(
        "podman network create --subnet 10.5.0.0/24 --disable-dns front > /dev/null
        podman network create --subnet 10.6.0.0/24 --disable-dns back > /dev/null
        {PODMAN_RUN} -d --name one --network front --network back -p 8080:80 --rootfs $PWD/rootfs \
            /bin/sh -c 'while :; do echo hello | nc -l -p 80; done' > /dev/null"
    ));
    assert_eq!(sandbox.ask("host", "TCP4:127.0.0.1:8080,retry=50,interval=0.1"), "hello");
    let address = "podman inspect one | jq -r '.[0].NetworkSettings.Networks[].IPAddress' | sort";
    assert_eq!(sh(address), "10.5.0.2\n10.6.0.2\n");
    let routes = sh("podman --runtime runc exec one ip route");
    // podman chooses at random which network gets eth0 (a Go map).
    let first = routes.lines().next().unwrap_or_default();
    assert!(first.starts_with("default via 10.") && first.contains(" dev eth0 "), "{routes}");
    sh("podman network disconnect back one && podman network connect back one");
    assert_eq!(sh(address), "10.5.0.2\n10.6.0.3\n");
    sh("podman --runtime runc rm -f -t 0 one > /dev/null");
    // On the host's wire, also with podman's file as our own.
    let shown = sh(&format!(
        "podman network create -d macvlan -o parent=out0 -o mode=private --subnet 192.0.2.0/24 --gateway 192.0.2.2 wire > /dev/null
        {PODMAN_RUN} --rm --network wire --ip 192.0.2.9 --rootfs $PWD/rootfs /bin/sh -c 'ip -4 -o address show eth0; ip route'"
    ));
    assert!(shown.contains("192.0.2.9/24") && shown.contains("default via 192.0.2.2 dev eth0"), "{shown}");
    sandbox.sh("mkdir -p $STAVE_ROOT/networks && cp net.d/wire.json $STAVE_ROOT/networks").ok();
    let own = "netns-add -n --id own | macvlan-attach wire | jq -r '.networks[0].parent | .name + \" \" + .mode'; unwind own > /dev/null";
    assert_eq!(sandbox.sh(own).ok(), "out0 private\n");
    assert_eq!(sandbox.sh("ls $STAVE_RUN; nft list ruleset; ip -br link show type bridge").ok(), "locks\n");
    sandbox.remove_podmans_cgroups();
}

#[test]
fn podmans_containers_find_each_other() {
    let sandbox = Sandbox::new();
    sandbox.sh("mkdir -p bin net.d && ln -s $(command -v stave-netavark) bin/netavark").ok();
    let network = "network_backend = \"netavark\"\nnetwork_config_dir = \"$PWD/net.d\"";
    sandbox.prepare_podman(network, "helper_binaries_dir = [\"$PWD/bin\"]");
    let sh = |line: &str| sandbox.podman(line).ok();
    let told = sh(&format!(
        "podman network create --subnet 10.5.0.0/24 front > /dev/null
        {PODMAN_RUN} -d --name db --network front --network-alias store --rootfs $PWD/rootfs /bin/sleep 1000 > /dev/null
        {PODMAN_RUN} --rm --network front --rootfs $PWD/rootfs /bin/sh -c 'cat /etc/resolv.conf; nslookup db; nslookup store; nslookup db.dns.podman'"
    ));
    assert!(told.contains("nameserver 127.0.0.11") && told.contains("search dns.podman"), "{told}");
    assert_eq!(told.matches("10.5.0.2").count(), 3, "{told}");
    sh("podman --runtime runc rm -f -t 0 db > /dev/null");
    assert_eq!(sandbox.sh("ls $STAVE_RUN; nft list ruleset; ip -br link show type bridge").ok(), "locks\n");
    sandbox.remove_podmans_cgroups();
}

/// What would have no effect is refused by its name, and what podman usually says is not.
#[test]
fn members_without_an_effect() {
    let sandbox = Sandbox::new();
    sandbox.sh("ip netns add one").ok();
    let before = sandbox.snapshot();
    let usual = json!({"created": "2026-01-01T00:00:00Z", "labels": {"a": "b"}, "network_dns_servers": null, "options": {"mtu": "0", "isolate": "true"},
        "subnets": [{"subnet": "10.5.0.0/24", "gateway": "10.5.0.1", "lease_range": {"start_ip": "10.5.0.8"}}]});
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut options = options(&usual);
        options["container_hostname"] = json!("one");
        options["dns_servers"] = json!(["192.0.2.9"]);
        let interface = json!({"static_mac": "02:00:00:00:00:07", "interface_name": "wan", "aliases": ["a"], "options": {}});
        options["networks"]["web"].as_object_mut().unwrap().extend(interface.as_object().unwrap().clone());
        change(&mut options);
        options
    };
    let whole = changed(&|_| {});
    let (status, result) = netavark(&sandbox, "setup", &whole);
    let interface = json!({"mac_address": "02:00:00:00:00:07", "subnets": [{"ipnet": "10.5.0.9/24", "gateway": "10.5.0.1"}]});
    // Without names on the network, podman writes the container's own name servers.
    let told =
        json!({"dns_search_domains": [], "dns_server_ips": ["192.0.2.9"], "interfaces": {"wan": interface}});
    assert_eq!((status, &result["web"]), (0, &told), "{result}");
    assert_eq!(netavark(&sandbox, "teardown", &whole), (0, Value::Null));
    // A name that cannot be looked up is told, as by netavark.
    let named = changed(&|options: &mut Value| {
        options["network_info"]["web"]["dns_enabled"] = json!(true);
        options["networks"]["web"]["aliases"] = json!(["fine", "a b", "77"]);
    });
    let outcome =
        sandbox.sh_with("stave-netavark setup /run/netns/one", named.to_string().as_bytes()).exits(0);
    for name in ["\"a b\"", "\"77\""] {
        assert!(outcome.stderr.contains(&format!("nobody can look up {name}: it is no name of a host")));
    }
    assert!(!outcome.stderr.contains("fine"), "{}", outcome.stderr);
    assert_eq!(netavark(&sandbox, "teardown", &named), (0, Value::Null));
    assert_eq!(sandbox.difference(&before), "");
    for (change, told) in [
        (
            &(|options: &mut Value| options["networks"]["web"]["options"] = json!({"metric": "7"}))
                as &dyn Fn(&mut Value),
            "option \"metric\" with value \"7\" of the interface on network \"web\" is not supported",
        ),
        (
            &|options: &mut Value| {
                options["networks"]["web"]["options"] = json!({"host_interface_name": "h0"})
            },
            "option \"host_interface_name\" with value \"h0\" of the interface on network \"web\" is not supported",
        ),
        (
            &|options: &mut Value| options["networks"]["web"]["driver_opts"] = json!({"a": "b"}),
            "member \"driver_opts\" of the interface on network \"web\" is not supported",
        ),
        (
            &|options: &mut Value| options["network_info"]["web"]["shaping"] = json!(7),
            "member \"shaping\" of network \"web\" is not supported",
        ),
        (
            &|options: &mut Value| options["network_info"]["web"]["subnets"][0]["vlan"] = json!(7),
            "member \"vlan\" of subnet 10.5.0.0/24 is not supported",
        ),
        (
            &|options: &mut Value| options["policy"] = json!("x"),
            "member \"policy\" of the container is not supported",
        ),
        (
            &|options: &mut Value| {
                options["network_info"]["web"]["options"]["com.docker.network.bridge.name"] = json!("b")
            },
            "network \"web\": option \"com.docker.network.bridge.name\" with value \"b\" is not supported",
        ),
    ] {
        let (status, result) = netavark(&sandbox, "setup", &changed(change));
        assert_eq!((status, &result["error"]), (1, &json!(told)));
        assert_eq!(sandbox.difference(&before), "", "{told}");
    }
}

/// Addresses, routes and options of networks, and a bridge that another program made.
#[test]
fn options_of_networks() {
    let sandbox = Sandbox::new();
    sandbox.sh("ip netns add one; ip netns add two").ok();
    let before = sandbox.snapshot();
    let more = json!({"options": {"metric": "200"}, "routes": [
        {"destination": "10.8.0.0/16", "gateway": "10.5.0.3", "metric": 7}, {"destination": "10.9.0.0/16", "route_type": "blackhole"}]});
    let mut first = options(&more);
    first["networks"]["web"]["static_ips"] = json!(["10.5.0.9", "10.5.0.10"]);
    let (status, result) = netavark(&sandbox, "setup", &first);
    let told = json!([{"ipnet": "10.5.0.9/24", "gateway": "10.5.0.1"}, {"ipnet": "10.5.0.10/24", "gateway": "10.5.0.1"}]);
    assert_eq!((status, &result["web"]["interfaces"]["eth0"]["subnets"]), (0, &told), "{result}");
    let shown = sandbox.within("one", "ip route").ok();
    for part in [
        "default via 10.5.0.1 dev eth0 proto 83 metric 200",
        "10.8.0.0/16 via 10.5.0.3 dev eth0 proto 83 metric 7",
        "blackhole 10.9.0.0/16 proto 83",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert_eq!(netavark(&sandbox, "teardown", &first), (0, Value::Null));
    assert_eq!(sandbox.within("one", "ip route").ok(), "");
    // Without an option, the metric is netavark's. Of two networks, the first one has the way out.
    let two = named("one", &[("web", "10.5.0.2"), ("back", "10.6.0.2")], &json!({}));
    assert_eq!(netavark(&sandbox, "setup", &two).0, 0);
    let routes = sandbox.within("one", "ip route show default").ok();
    assert!(
        routes.contains("metric 100") && routes.contains("via 10.6.0.1 dev eth1 proto 83 metric 101"),
        "{routes}"
    );
    assert_eq!(netavark(&sandbox, "teardown", &two), (0, Value::Null));
    let none = options(&json!({"options": {"no_default_route": "true"}}));
    assert_eq!(netavark(&sandbox, "setup", &none).0, 0);
    assert_eq!(sandbox.within("one", "ip route show default").ok(), "");
    assert_eq!(netavark(&sandbox, "teardown", &none), (0, Value::Null));
    // Nobody reaches an internal network by a port.
    let internal = options(&json!({"internal": true}));
    assert_eq!(netavark(&sandbox, "setup", &internal).0, 0);
    assert_eq!(sandbox.within("one", "ip route show default").ok(), "");
    assert_eq!(netavark(&sandbox, "teardown", &internal), (0, Value::Null));
    assert_eq!(sandbox.difference(&before), "");
    // The order of a list is that of the interfaces.
    let mut list = two.clone();
    let (web, back) = (&two["networks"]["web"], &two["networks"]["back"]);
    list["networks"] = json!([{"name": "back"}, {"name": "web"}]);
    for (at, one) in [back, web].into_iter().enumerate() {
        list["networks"][at].as_object_mut().unwrap().extend(one.as_object().unwrap().clone());
    }
    assert_eq!(netavark(&sandbox, "setup", &list).0, 0);
    let links = sandbox.within("one", "ip -o link show | cut -d: -f2 | cut -d@ -f1 | xargs").ok();
    assert_eq!(links.trim(), "lo eth1 eth0");
    assert_eq!(netavark(&sandbox, "teardown", &list), (0, Value::Null));
    sandbox.sh("ip link add podman1 address 02:00:00:00:00:09 type bridge; ip link set podman1 up").ok();
    let standing = sandbox.snapshot();
    let mut unmanaged = options(&json!({"options": {"mode": "unmanaged"}, "port_mappings": null}));
    unmanaged["port_mappings"] = Value::Null;
    let (status, result) = netavark(&sandbox, "setup", &unmanaged);
    let told = json!([{"ipnet": "10.5.0.9/24", "gateway": "10.5.0.1"}]);
    assert_eq!((status, &result["web"]["interfaces"]["eth0"]["subnets"]), (0, &told), "{result}");
    assert!(!sandbox.sh("ip -br address show podman1").ok().contains("10.5.0"));
    assert_eq!(netavark(&sandbox, "teardown", &unmanaged), (0, Value::Null));
    assert_eq!(sandbox.difference(&standing), "");
    sandbox.sh("ip link del podman1").ok();
}
