//! Ports of a running container are published and withdrawn. Needs root, socat and the tools of a whole pipe.
#![allow(clippy::unwrap_used)]

use testkit::{HOST, Sandbox};

/// A container with a server on port 80, and on port 81 a server that echoes its input.
fn running() -> Sandbox {
    let sandbox = Sandbox::with_busybox();
    sandbox
        .sh("layer-apply --id web < busybox.json | union-mount | netns-bridge | veth-pair |
                ns-exec -d -- sh -c 'mkdir www; echo hello > www/index.html; httpd -p 80 -h www; nc -ll -p 81 -e cat' > web.json
             until [ $(ip netns exec web ss -Hlnt | grep -c ':8[01] ') = 2 ]; do sleep 0.01; done")
        .ok();
    sandbox
}

#[test]
fn ports_come_and_go_and_open_connections_stay() {
    let sandbox = running();
    let fetch = |port: u16| {
        sandbox.outside(&format!("curl --silent --max-time 1 http://{HOST}:{port}/ || true")).ok()
    };
    assert_eq!(fetch(8080), "");
    sandbox.sh("portmap -p 8080:80 -p 8081:81 < web.json > one.json").ok();
    sandbox.sh("portmap -p 8082:80 < one.json > two.json").ok();
    assert_eq!(fetch(8080), "hello\n");
    assert_eq!(fetch(8082), "hello\n");
    // A client that sends the words of the test.
    let client = format!("mkfifo words; socat - TCP4:{HOST}:8081 <> words > heard 2> /dev/null & true");
    sandbox.outside(&client).ok();
    let says = |word: &str| {
        sandbox.sh(&format!("echo {word} > words; for n in $(seq 100); do grep -qx {word} heard && exit; sleep 0.02; done; exit 1"))
    };
    says("first").ok();
    for (undo, left) in
        [("portmap --undo < two.json > three.json", 2), ("portmap --undo < three.json > four.json", 0)]
    {
        sandbox.sh(undo).ok();
        let document = sandbox.sh("cat $(ls -t *.json | head -n 1)").json();
        assert_eq!(document["ports"].as_array().map_or(0, Vec::len), left);
        says(&format!("word{left}")).ok();
    }
    assert_eq!((fetch(8080), fetch(8082)), (String::new(), String::new()));
    // The same port again, for another port of the container.
    sandbox.sh("portmap -p 8081:80 < four.json > five.json").ok();
    assert_eq!(fetch(8081), "hello\n");
    says("last").ok();
    sandbox.sh("ns-exec --check < five.json > /dev/null && portmap --check < five.json > /dev/null").ok();
    sandbox.sh("portmap --undo < five.json > six.json; cmp web.json six.json").ok();
    sandbox.sh("pkill socat").ok();
    sandbox.sh("unwind web > /dev/null").ok();
}

#[test]
fn all_ports_that_the_image_exposes() {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    sandbox.sh("netns-bridge -n --id web | veth-pair > web.json").ok();
    let with = |document: &str, ports: &str| {
        format!("jq '.image = {{descriptor: {{mediaType: \"application/vnd.oci.image.manifest.v1+json\", digest: \"sha256:{}\", size: 1}},
            configuration: {{architecture: \"amd64\", os: \"linux\", rootfs: {{type: \"layers\", diff_ids: []}},
            config: {{ExposedPorts: {{{ports}}}}}}}}}' {document}", "0".repeat(64))
    };
    let exposed = with("web.json", r#""443/tcp": {}, "53/udp": {}, "80": {}, "7000-7002/tcp": {}"#);
    let publish = format!("{exposed} | portmap -p 8080:80 | portmap -P > all.json");
    sandbox.sh(&publish).ok();
    let ports = sandbox.sh("jq -c '[.ports[] | [.containerPort, .protocol]]' all.json").ok();
    assert_eq!(
        ports,
        "[[80,\"tcp\"],[53,\"udp\"],[443,\"tcp\"],[7000,\"tcp\"],[7001,\"tcp\"],[7002,\"tcp\"]]\n"
    );
    assert_eq!(sandbox.sh("jq '[.ports[] | [.hostPort, .protocol]] | unique | length' all.json").ok(), "6\n");
    sandbox.sh("portmap --check < all.json > /dev/null; portmap -P < all.json > same.json").ok();
    assert_eq!(sandbox.sh("jq -c '.ports | length' same.json").ok(), "6\n");
    // One exposed range is one range: so many ports are held only on request.
    sandbox.sh("unwind < same.json | jq 'del(.ports)' > /dev/null; netns-bridge -n --id web | veth-pair > web.json").ok();
    let large = with("web.json", r#""7000-7256/tcp": {}, "80": {}"#);
    let held = "[.steps[] | select(.tool == \"portmap\") | .operations[] | select(.op == \"port-hold\") | .ports[] | .last - .first + 1] | add";
    for (flag, expected) in [("", "1\n"), (" --hold", "258\n")] {
        sandbox.sh(&format!("{large} | portmap -P{flag} > many.json")).ok();
        assert_eq!(sandbox.sh("jq '.ports | length' many.json").ok(), "258\n");
        assert_eq!(sandbox.sh(&format!("jq '{held}' many.json")).ok(), expected);
        sandbox.sh("portmap --undo < many.json > web.json").ok();
    }
    sandbox.sh(&format!("{exposed} | portmap -P > same.json")).ok();
    for (ports, line) in [
        (
            r#""x/tcp": {}"#,
            r#"portmap: publish "x/tcp", which the image exposes: "x" is not a port: 1 to 65535"#,
        ),
        (r#""1:2": {}"#, r#"portmap: publish "1:2", which the image exposes: it names a port of the host"#),
    ] {
        let outcome = sandbox.sh(&format!("{} | portmap -P > /dev/null", with("same.json", ports)));
        assert_eq!(outcome.stderr.lines().next(), Some(line));
    }
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox.assert_as(&before);
}
