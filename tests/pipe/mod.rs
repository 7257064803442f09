//! A pipe with all kinds of steps, for tests in which one of its tools is killed or has a failing call.

use testkit::Sandbox;

/// A tool of a pipe, with its arguments.
pub(crate) type Stage = (&'static str, &'static str);

/// The tools of the pipe.
pub(crate) const PIPE: [Stage; 8] = [
    ("layer-apply", "--id web"),
    ("union-mount", "--size 8m"),
    ("union-snapshot", ""),
    ("netns-bridge", ""),
    ("veth-pair", ""),
    ("portmap", "-p 10080:80"),
    ("link-hosts", "--link db:database"),
    ("ns-exec", "-d -- sleep 1000"),
];

/// The tools of a pipe that makes a network on the host's wire.
#[allow(dead_code)] // Not each test uses it.
pub(crate) const ON_THE_WIRE: [Stage; 2] = [("netns-add", "--id web"), ("macvlan-attach", "--parent out0")];

/// The pipe up to the tool at this place, with `before` in front of that tool.
#[allow(dead_code)] // Not each test uses it.
pub(crate) fn pipe(last: usize, before: &str) -> String {
    pipe_of(&PIPE, last, before)
}

/// Like [`pipe`], with these tools.
pub(crate) fn pipe_of(stages: &[Stage], last: usize, before: &str) -> String {
    let tool = |(place, (tool, arguments)): (usize, &(&str, &str))| {
        let before = if place == last { before } else { "" };
        let input = if place == 0 { "< busybox.json" } else { "" };
        format!("{before} {tool} {arguments} {input}")
    };
    stages.iter().take(last + 1).enumerate().map(tool).collect::<Vec<_>>().join(" | ") + " > web.json"
}

/// The record of the container to which link-hosts links. Nothing of that container exists, so that the
/// bridge is made and removed with the container under test.
const LINKED: &str = r#"{"stave":1,"id":"db","steps":[],"network":{"mode":"bridge","namespace":"/run/netns/db",
    "bridge":{"name":"stave0","subnet":"172.17.0.0/16","gateway":"172.17.0.1"},
    "cni":{"cniVersion":"1.1.0","interfaces":[],"ips":[{"address":"172.17.0.99/16"}],"routes":[],"dns":{}}}}"#;

/// A sandbox with unpacked layers, so that all runs do the same, and with everything that the pipe needs.
pub(crate) fn ready() -> Sandbox {
    let sandbox = Sandbox::with_busybox();
    sandbox.sh("layer-apply --id first < busybox.json | unwind > /dev/null").ok();
    std::fs::write(sandbox.run().join("stave/db.json"), LINKED).unwrap();
    sandbox
}
