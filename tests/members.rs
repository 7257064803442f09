//! A member is the sum of what the steps add to it: undoing any step leaves a true document, and a true
//! record. Documents of 0.1.0, whose steps do not list what they add, are undone as before.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use testkit::{Sandbox, repository};

/// The record of `web`.
fn record(sandbox: &Sandbox) -> Value {
    sandbox.sh("cat /run/stave/web.json").json()
}

/// The host ports in a document.
fn ports(document: &Value) -> Vec<u64> {
    document["ports"].as_array().into_iter().flatten().filter_map(|port| port["hostPort"].as_u64()).collect()
}

#[test]
fn each_portmap_takes_back_its_own_ports() {
    let sandbox = Sandbox::new();
    let network = "netns-bridge -n --id web | veth-pair";
    let both = sandbox
        .sh(&format!("{network} | portmap -p 8080:80 | portmap -p 8443:443 -p 9000:9000 | tee both.json"));
    let both = both.json();
    assert_eq!(ports(&both), [8080, 8443, 9000]);
    assert_eq!(both["steps"][3]["adds"]["ports"][0]["hostPort"], 8443);
    let one = sandbox.sh("portmap --undo < both.json | tee one.json").json();
    assert_eq!(ports(&one), [8080]);
    assert_eq!(record(&sandbox), one);
    // A later step sees the same, and can be added and undone.
    let again = sandbox.sh("portmap -p 8444:443 < one.json | tee again.json").json();
    assert_eq!(ports(&again), [8080, 8444]);
    let none = sandbox.sh("portmap --undo < again.json | portmap --undo | tee none.json").json();
    assert_eq!(none.get("ports"), None);
    assert_eq!(record(&sandbox), none);
    sandbox.sh("unwind web > /dev/null").ok();
}

/// One call is enough, because each call reads and writes the whole document and the whole record.
#[test]
fn unwind_undoes_steps_of_one_tool_by_one_call() {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    sandbox.sh("netns-bridge -n --id db | veth-pair > db.json").ok();
    let network = "netns-bridge -n --id web | veth-pair | portmap -p 80:80 | portmap -p 81:81";
    sandbox
        .sh(&format!("{network} | link-hosts --link db | portmap -p 82:82 | portmap -p 83:83 > web.json"))
        .ok();
    let calls = sandbox.sh("unwind --explain web").ok();
    let call = |line: &str| line.split_once(" --root").unwrap().0.rsplit('/').next().unwrap().to_owned();
    assert_eq!(
        calls.lines().map(call).collect::<Vec<_>>(),
        [
            "portmap --undo --steps 2",
            "link-hosts --undo",
            "portmap --undo --steps 2",
            "veth-pair --undo",
            "netns-bridge --undo"
        ]
    );
    // A step that cannot be undone does not keep the others.
    sandbox.sh("cp /run/stave/web.json whole").ok();
    sandbox.sh("jq -c '.steps[3].operations = [{\"op\": \"theirs\"}]' whole > /run/stave/web.json").ok();
    let undone = sandbox.sh("unwind web > left.json").exits(1);
    let told = "portmap: step \"portmap\" of the record lists no operations of this tool";
    assert!(undone.stderr.starts_with(told), "{}", undone.stderr);
    assert_eq!(
        sandbox.sh("jq -c '[.steps[].tool], [.ports[].hostPort]' left.json").ok(),
        "[\"portmap\"]\n[81]\n"
    );
    assert_eq!(record(&sandbox)["steps"], sandbox.sh("cat left.json").json()["steps"]);
    sandbox.sh("cp whole /run/stave/web.json; unwind web db > /dev/null").ok();
    sandbox.assert_as(&before);
}

#[test]
fn what_was_done_by_hand_survives() {
    let sandbox = Sandbox::new();
    sandbox
        .sh("netns-bridge -n --id web | veth-pair | portmap -p 8080:80 | portmap -p 8443:443 > both.json")
        .ok();
    let by_hand = ".ports[0].name = \"http\" | .ports += [{\"hostPort\": 1}] | .network.theirs = 1";
    let undone = sandbox.sh(&format!("jq '{by_hand}' both.json | portmap --undo | tee one.json")).json();
    assert_eq!(undone["ports"][0]["name"], "http");
    assert_eq!(ports(&undone), [8080, 1]);
    let undone = sandbox.sh("portmap --undo < one.json | veth-pair --undo | tee two.json").json();
    assert_eq!((undone.get("ports"), &undone["network"]["theirs"]), (None, &json!(1)));
    assert_eq!(undone["network"].get("cni"), None);
    assert_eq!(undone["network"]["mode"], "bridge");
    let undone = sandbox.sh("netns-bridge --undo < two.json").json();
    assert_eq!(undone.get("network"), None);
    sandbox.sh("unwind web > /dev/null").ok();
}

#[test]
fn steps_that_share_a_member_go_in_any_order() {
    let sandbox = Sandbox::new();
    sandbox.sh("netns-bridge -n --id db | veth-pair > db.json").ok();
    let pipe = "netns-bridge -n --id web | veth-pair | link-hosts --link db:one | link-hosts --link db:two";
    let document = sandbox.sh(&format!("{pipe} | tee web.json")).json();
    assert_eq!(document["hosts"]["entries"].as_array().unwrap().len(), 2);
    let undone = sandbox.sh("link-hosts --undo < web.json | tee one.json").json();
    assert_eq!(undone["hosts"]["entries"][0]["names"], json!(["one", "db"]));
    assert_eq!(undone["hosts"]["entries"].as_array().unwrap().len(), 1);
    assert!(
        undone["hosts"]["environment"]
            .as_array()
            .unwrap()
            .iter()
            .all(|variable| { variable.as_str().unwrap().starts_with("ONE_") })
    );
    // The lower step first: what is left describes only the upper step.
    let undone = sandbox.sh("netns-bridge --undo < one.json | tee two.json").json();
    assert_eq!(undone["network"], json!({"cni": document["network"]["cni"]}));
    assert_eq!(undone["networks"], document["networks"]);
    assert_eq!(record(&sandbox), undone);
    let undone = sandbox.sh("veth-pair --undo < two.json").json();
    assert_eq!(undone.get("network"), None);
    sandbox.sh("unwind web db > /dev/null").ok();
}

#[test]
fn a_container_keeps_its_second_network() {
    let sandbox = Sandbox::new();
    sandbox.sh("netns-add -n --id web | bridge-attach lan0 --subnet 10.5.0.0/24 | bridge-attach lan1 --subnet 10.6.0.0/24 > both.json").ok();
    let undone = sandbox.sh("bridge-attach --undo lan0 < both.json").json();
    assert_eq!(
        (undone["networks"].as_array().unwrap().len(), &undone["networks"][0]["name"]),
        (1, &json!("lan1"))
    );
    assert_eq!(undone["network"]["mode"], "bridge");
    assert_eq!(record(&sandbox), undone);
    sandbox.sh("unwind web > /dev/null").ok();
}

#[test]
fn layers_are_added_once_and_a_process_is_one() {
    let sandbox = Sandbox::with_busybox();
    let document = sandbox.sh("layer-apply --id web < busybox.json | layer-apply | tee twice.json").json();
    assert_eq!(document["layers"].as_array().unwrap().len(), 1);
    assert_eq!(document["steps"][2]["adds"]["layers"], json!([]));
    let other = sandbox.sh("layer-apply --format erofs < twice.json > /dev/null").exits(1);
    assert_eq!(
        other.stderr,
        "layer-apply: the document has other `layers` already\n\
         hint: run `layer-apply --undo` first: it removes them from the document\n"
    );
    sandbox.sh("union-mount < twice.json | ns-exec -d -- sleep 1000 > web.json").ok();
    let second = sandbox.sh("ns-exec -d -- true < web.json").exits(125);
    assert!(
        second.stderr.starts_with("ns-exec: the container has a process already\nhint: "),
        "{}",
        second.stderr
    );
    let pid = sandbox.sh("cat web.json").json()["process"]["pid"].clone();
    sandbox
        .sh(&format!(
            "kill -9 {pid}; until jq -e .process.exitStatus /run/stave/web.json; do sleep 0.02; done"
        ))
        .ok();
    let undone = sandbox.sh("ns-exec --undo < web.json | tee mounted.json").json();
    assert_eq!(undone.get("process"), None);
    assert_eq!(record(&sandbox), undone);
    let undone = sandbox.sh("union-mount --undo < mounted.json | layer-apply --undo | tee one.json").json();
    assert_eq!((undone.get("rootfs"), undone["layers"].as_array().unwrap().len()), (None, 1));
    assert_eq!(sandbox.sh("layer-apply --undo < one.json").json().get("layers"), None);
    sandbox.sh("unwind web > /dev/null").ok();
}

/// A document of 0.1.0 from a whole pipe, as 0.1.0 printed it, and its record.
#[test]
fn documents_of_0_1_0_are_read_and_undone() {
    let sandbox = Sandbox::new();
    let golden = std::fs::read_to_string(repository().join("tests/golden/0.1.0/web.json")).unwrap();
    let mut document: Value = serde_json::from_str(&golden).unwrap();
    std::fs::write(sandbox.directory().join("0.json"), &golden).unwrap();
    sandbox.sh("cp 0.json /run/stave/web.json").ok();
    let listed = sandbox.sh("container-ls").json();
    assert_eq!(listed[0]["ports"], json!(["0.0.0.0:10080->80/tcp", "0.0.0.0:10443->443/tcp"]));
    // Undo of 0.1.0, tool by tool: which member is removed with which step, and how `network` shrinks.
    let tools = ["ns-exec", "link-hosts", "link-hosts", "portmap", "portmap", "veth-pair", "netns-bridge"];
    let tools = tools.into_iter().chain(["union-mount", "layer-apply", "img-build"]);
    for (number, tool) in tools.enumerate() {
        let script =
            format!("STAVE_ROOT=/var/lib/stave {tool} --undo < {number}.json | tee {}.json", number + 1);
        let undone = sandbox.sh(&script).json();
        document["steps"].as_array_mut().unwrap().pop();
        let members = document.as_object_mut().unwrap();
        match (tool, number) {
            ("ns-exec", _) => members.remove("process"),
            ("link-hosts", 2) => members.remove("hosts"),
            ("portmap", 4) => members.remove("ports"),
            ("veth-pair", _) => members["network"].as_object_mut().unwrap().remove("cni"),
            ("netns-bridge", _) => members.remove("network"),
            ("union-mount", _) => members.remove("rootfs"),
            ("layer-apply", _) => members.remove("layers"),
            ("img-build", _) => members.remove("image").and(members.remove("instance")),
            _ => None,
        };
        assert_eq!(undone, document, "{tool}");
        match number {
            9 => assert_eq!(
                sandbox.sh("test ! -e /run/stave/web.json").ok(),
                "",
                "the record goes with the last step"
            ),
            _ => assert_eq!(record(&sandbox), document, "{tool}"),
        }
    }
}

/// Steps of 0.1.0 and of this version in one document.
#[test]
fn an_old_document_goes_on() {
    let sandbox = Sandbox::new();
    sandbox.sh("netns-bridge -n --id web | veth-pair | portmap -p 8080:80 > new.json").ok();
    // As 0.1.0 wrote it.
    sandbox.sh("jq -c 'del(.steps[].adds)' new.json > old.json; cp old.json /run/stave/web.json").ok();
    let both = sandbox.sh("portmap -p 8443:443 < old.json | tee both.json").json();
    assert_eq!(ports(&both), [8080, 8443]);
    let one = sandbox.sh("portmap --undo < both.json | tee one.json").json();
    assert_eq!(ports(&one), [8080]);
    let none = sandbox.sh("portmap --undo < one.json").json();
    assert_eq!(none.get("ports"), None);
    assert_eq!(record(&sandbox), none);
    sandbox.sh("unwind web > /dev/null").ok();
}

/// A document that the tools of 0.2 wrote before there was a list of attachments.
#[test]
fn a_document_with_one_network_goes_on() {
    let sandbox = Sandbox::new();
    sandbox.sh("netns-bridge -n --id web | veth-pair > new.json").ok();
    let new = sandbox.sh("cat new.json").json();
    assert_eq!(new["networks"][0]["cni"], new["network"]["cni"]);
    assert_eq!(new["networks"][0]["bridge"], new["network"]["bridge"]);
    sandbox
        .sh("jq -c 'del(.networks, .steps[].adds.networks)' new.json > old.json; cp old.json /run/stave/web.json")
        .ok();
    let address = "networks[0].cni.ips[0].address";
    let listed = sandbox.sh(&format!("jq -r '.{address}' new.json; container-ls --format '{{ip}}'")).ok();
    assert_eq!(listed, "172.17.0.2/16\n172.17.0.2\n");
    let linked = "netns-bridge -n --id db | veth-pair | link-hosts --link web > db.json";
    sandbox.sh(&format!("portmap -p 8080:80 < old.json > ports.json; {linked}")).ok();
    let other = sandbox.sh("cat db.json").json();
    assert_eq!(other["hosts"]["entries"][0]["ip"], "172.17.0.2");
    let undone = sandbox.sh("portmap --undo < ports.json | veth-pair --undo | tee one.json").json();
    assert_eq!((undone.get("networks"), undone["network"].get("cni")), (None, None));
    assert_eq!(record(&sandbox), undone);
    sandbox.sh("unwind web db > /dev/null").ok();
}
