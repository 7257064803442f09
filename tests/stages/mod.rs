//! The stages of a container's pipe, for tests in which each of them fails.

use testkit::Sandbox;

/// The name of a command's tool.
pub(crate) fn name(command: &str) -> &str {
    command.split(' ').next().unwrap()
}

/// The exit status of a tool with bad input. ns-exec has its own status.
pub(crate) fn status(command: &str, status: i32) -> i32 {
    if name(command) == "ns-exec" { 125 } else { status }
}

/// The commands of the pipe, each with a valid document.
fn stages(sandbox: &Sandbox) -> Vec<(&'static str, String)> {
    let pipe = [
        "layer-apply --id web",
        "union-mount",
        "union-snapshot",
        "netns-bridge",
        "veth-pair",
        "portmap -p 10080:80",
    ];
    let mut document = sandbox.sh("img-ls > /dev/null; img-load -q -t busybox2 busybox.tar").ok();
    let mut stages = Vec::new();
    for command in pipe {
        stages.push((command, document.clone()));
        document = sandbox.sh_with(command, document.as_bytes()).ok();
    }
    stages.push(("ns-exec -d -- sleep 1000", document));
    stages
}

/// A sandbox in which the pipe has run up to its last stage as `web`, and the stages.
pub(crate) fn with_stages() -> (Sandbox, Vec<(&'static str, String)>) {
    let sandbox = Sandbox::with_busybox();
    std::fs::write(sandbox.directory().join("busybox.tar"), testkit::busybox()).unwrap();
    let stages = stages(&sandbox);
    (sandbox, stages)
}

/// Unwinds `web`, and waits for the processes that its tools leave behind.
pub(crate) fn unwind(sandbox: &Sandbox) {
    sandbox.sh("unwind web > /dev/null").ok();
    sandbox
        .sh("for try in $(seq 100); do grep -qs -e '-[-]undo' /proc/[0-9]*/cmdline || break; sleep 0.02; done")
        .ok();
}
