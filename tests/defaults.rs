//! Defaults of flags, and who takes none.
#![allow(clippy::unwrap_used)]

use testkit::Sandbox;

#[test]
fn a_job_takes_them_and_an_undo_does_not() {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    let with = |script: &str| sandbox.sh(&format!("export XDG_CONFIG_HOME=$PWD/own; {script}"));
    sandbox.sh("mkdir own && printf '[portmap]\\npublish = \"8080:80\"\\n' > own/stave.toml").ok();
    let ports = "jq -c '[.ports[].hostPort]'";
    let made = with(&format!("netns-bridge -n --id web | veth-pair | portmap | tee web.json | {ports}")).ok();
    assert_eq!(made, "[8080]\n");
    assert_eq!(with(&format!("portmap -p 81:81 < web.json | tee more.json | {ports}")).ok(), "[8080,81]\n");
    let none = with("portmap --no-config < more.json > /dev/null").exits(2).stderr;
    assert!(none.starts_with("portmap: the following required arguments were not provided"), "{none}");
    // A runtime's own configuration counts for a plugin.
    let plugin = "echo '{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"type\":\"stave-bridge\"}' |
        CNI_COMMAND=ADD CNI_CONTAINERID=c CNI_NETNS=/run/netns/web CNI_IFNAME=eth7 CNI_PATH=/ bridge-attach";
    sandbox.sh("printf '[bridge-attach]\\ninternal = true\\n' > own/stave.toml").ok();
    let result = with(plugin).json();
    assert_eq!(result["interfaces"][0]["name"], "cni0", "{result}");
    assert_eq!(sandbox.sh("jq -r '.networks[0].internal // false' /run/stave/cni-*.json").ok(), "false\n");
    sandbox.sh("unwind -q $(container-ls --ids | grep cni-)").ok();
    // What undoes works whatever is in the file. A job says what is wrong, and passes the document on.
    sandbox.sh("echo nonsense > own/stave.toml").ok();
    let file = sandbox.directory().join("own/stave.toml");
    let failed = with("portmap -p 82:82 < more.json | jq -r .error.message").ok();
    assert!(failed.starts_with(&format!("take defaults from {}: line 1: ", file.display())), "{failed}");
    assert_eq!(with(&format!("portmap --undo < more.json | {ports}")).ok(), "[8080]\n");
    // So does one that starts a document, if the system fails and the words are not to blame.
    sandbox.sh("ln -sf stave.toml own/stave.toml").ok();
    let failed = with("netns-add -n --id other | jq -r .error.message").ok();
    assert_eq!(failed, format!("take defaults from {}: Too many levels of symbolic links\n", file.display()));
    with("netns-add -n --id other --no-config | netns-add --undo > /dev/null").ok();
    with("unwind -q web").ok();
    sandbox.assert_as(&before);
}

/// Bars and lines for people only come when there is something to wait for.
#[test]
fn long_work_tells_how_far_it_is() {
    let sandbox = Sandbox::new();
    sandbox.sh("mkdir upper && seq 9000000 > upper/big").ok();
    let typed = |flags: &str| {
        sandbox.sh(&format!("script -qec 'taskset -c 0 layer-diff {flags} --compression gzip:12 -o layer.tar.gz upper > report' /dev/null < /dev/null")).ok()
    };
    let told = typed("");
    assert!(told.contains("packing the layer: ") && told.ends_with("\r\u{1b}[K"), "{told:?}");
    assert_eq!(typed("-q"), "");
}

#[test]
fn a_switch_that_is_switched_off_counts_instead_of_its_default() {
    let sandbox = Sandbox::with_busybox();
    let with = |script: &str| sandbox.sh(&format!("export XDG_CONFIG_HOME=$PWD/own; {script}"));
    sandbox.sh("mkdir own && printf '[ns-exec]\\nread-only = true\\n[img-save]\\nquiet = true\\n' > own/stave.toml").ok();
    let run = |flag: &str| {
        let pipe = "img-inspect busybox | layer-apply --id web | union-mount";
        let touch = "sh -c 'touch /new 2> /dev/null; test -e /new'";
        with(&format!("{pipe} | ns-exec {flag} -- {touch}; status=$?; unwind web > /dev/null; exit $status"))
    };
    run("").exits(1);
    run("--read-only=false").ok();
    run("--read-only=false --read-only").exits(1);
}

/// The work is slow because of its input, so that what is shown does not depend on the machine.
#[test]
fn loading_saving_and_copying_show_how_far_they_are() {
    let sandbox = Sandbox::new();
    sandbox
        .sh("mkdir tree && head -c 40000000 /dev/urandom > tree/big && tar -C tree -cf tree.tar .
            img-load -q -t big tree.tar > /dev/null && img-save -o big.tar big > /dev/null")
        .ok();
    let typed = |command: &str| sandbox.sh(&format!("script -qec \"{command}\" /dev/null < /dev/null")).ok();
    let loaded = typed("(head -c 20000000 big.tar; sleep 1; tail -c +20000001 big.tar) | img-load -");
    let (shown, named) = loaded.rsplit_once("\r\u{1b}[K").unwrap();
    assert!(shown.contains("loading: ") && shown.contains(" MB"), "{loaded:?}");
    assert_eq!(named, "Loaded image: big:latest\r\n");
    assert_eq!(typed("(head -c 20000000 big.tar; sleep 1; tail -c +20000001 big.tar) | img-load -q -"), "");
    let saved = typed("img-save big | (head -c 9000000; sleep 1; cat) > saved.tar");
    assert!(
        saved.contains("saving: [") && saved.contains("> ") && saved.ends_with("\r\u{1b}[K"),
        "{saved:?}"
    );
    sandbox.sh("cmp big.tar saved.tar").ok();
}
