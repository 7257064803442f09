//! The whole pipe inside a Docker container: which flags of `docker run` it needs, and what is less contained
//! there.
#![allow(clippy::unwrap_used)]

use testkit::{Outcome, Sandbox, binaries};

/// Starts dockerd in the sandbox. The image `look` has busybox. Its containers have the tools, and the same
/// root file system as an archive, in `/stave`.
const DOCKERD: &str = "mkdir -p /run/docker-data && (dockerd --data-root /run/docker-data --exec-root /run/docker-exec --pidfile /run/d.pid \
    -H unix:///run/d.sock --bridge none --iptables=false --storage-driver vfs > dockerd.log 2>&1 &)
    for try in $(seq 100); do docker -H unix:///run/d.sock version > /dev/null 2>&1 && break; sleep 0.2; done
    docker -H unix:///run/d.sock import - look < /run/stave-in/busybox.tar > /dev/null";

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.sh("mkdir /run/stave-in").ok();
    std::fs::write(sandbox.run().join("stave-in/busybox.tar"), testkit::busybox()).unwrap();
    let tools = ["img-load", "layer-apply", "union-mount", "ns-exec"]
        .map(|tool| binaries().join(tool).display().to_string());
    sandbox.sh(&format!("cp {} /run/stave-in/", tools.join(" "))).ok();
    sandbox.sh(DOCKERD).ok();
    sandbox
}

/// Runs the pipe in a container with these flags of `docker run`, as root or in a user namespace.
fn nested(sandbox: &Sandbox, flags: &str, in_user_namespace: bool, script: &str) -> Outcome {
    let (before, rootless) = if in_user_namespace { ("unshare -Urm", "--rootless") } else { ("", "") };
    std::fs::write(sandbox.run().join("stave-in/script"), script).unwrap();
    let pipe = format!(
        "img-load -q -t x /stave/busybox.tar | layer-apply --id web {rootless} | union-mount | ns-exec -- sh -c \"$(cat /stave/script)\""
    );
    std::fs::write(sandbox.run().join("stave-in/pipe"), pipe).unwrap();
    sandbox.sh(&format!(
        "docker -H unix:///run/d.sock run --rm --network none -v /run/stave-in:/stave:ro --tmpfs /data:exec -e PATH=/stave:/bin \
         -e STAVE_ROOT=/data/root -e STAVE_RUN=/data/run {flags} look {before} sh /stave/pipe"
    ))
}

const UNCONFINED: &str = "--security-opt seccomp=unconfined";

/// Shows what belongs to the container, and what it can change of the kernel.
const LOOK: &str = "id -u; cat /proc/self/comm; test $$ = 1 && echo own pids; (echo x > /proc/sys/kernel/core_pattern) 2>&1; \
    cat /proc/sys/net/ipv4/ip_unprivileged_port_start";

const READ_ONLY: &str = "sh: can't create /proc/sys/kernel/core_pattern: Read-only file system\n";

#[test]
fn the_pipe_runs_where_system_calls_are_not_confined() {
    let sandbox = sandbox();
    let cgroup = "ns-exec: warning: the container has no cgroup of its own: ";
    // In a user namespace, without any capability. The kernel refuses to mount a procfs where masked paths
    // hide parts of one.
    let seen = nested(&sandbox, UNCONFINED, true, LOOK).exits(0);
    assert_eq!(seen.stdout, format!("0\ncat\nown pids\n{READ_ONLY}1024\n"));
    let mut warnings = seen.stderr.lines();
    assert!(warnings.next().is_some_and(|line| line.starts_with(cgroup)), "{}", seen.stderr);
    assert_eq!(
        warnings.collect::<Vec<_>>(),
        [
            "ns-exec: warning: set net.ipv4.ip_unprivileged_port_start and net.ipv4.ping_group_range: /proc/sys is read-only, as in a container; it stays as it is",
            "ns-exec: warning: mount procfs: the kernel refuses it, as in a container with masked paths; the container sees the processes of its surroundings",
            "ns-exec: warning: mount sysfs: the kernel refuses it, as in a container; /sys stays as it is in the image",
        ]
    );
    // Without masked paths the inner container has its own procfs, and sees only its own processes.
    let open = format!("{UNCONFINED} --security-opt systempaths=unconfined");
    let seen = nested(&sandbox, &open, true, &format!("{LOOK}; ls -d /proc/[0-9]* | head -n 1")).exits(0);
    assert_eq!(seen.stdout, format!("0\ncat\nown pids\n{READ_ONLY}0\n/proc/1\n"));
    assert!(seen.stderr.starts_with(cgroup) && seen.stderr.lines().count() == 1, "{}", seen.stderr);
    // As root with two capabilities: the outer container's /proc/sys is read-only, and the inner one's is
    // not.
    let root = format!("{UNCONFINED} --cap-add SYS_ADMIN --cap-add NET_ADMIN");
    let seen = nested(&sandbox, &root, false, &format!("{LOOK}; ls -d /proc/[0-9]* | head -n 1")).exits(0);
    assert_eq!(seen.stdout, format!("0\ncat\nown pids\n{READ_ONLY}0\n/proc/1\n"), "{}", seen.stderr);
}

#[test]
fn what_is_missing_is_said_in_a_line() {
    let sandbox = sandbox();
    let refused = nested(&sandbox, "", false, "true");
    let hint = "hint: root may not do this here, as in a container: run the pipe in `unshare --user --map-root-user --mount`, and start a \
        container of Docker's with --security-opt seccomp=unconfined";
    let error = refused.exits(125).stderr;
    assert_eq!(error, format!("union-mount: open file system overlay: Operation not permitted\n{hint}\n"));
    let seen = nested(&sandbox, &format!("{UNCONFINED} --cap-add SYS_ADMIN"), false, "true").exits(125);
    assert_eq!(
        seen.stderr.lines().filter(|line| !line.contains("warning")).collect::<Vec<_>>(),
        [
            "ns-exec: set link lo up: Operation not permitted",
            "hint: this needs CAP_NET_ADMIN, or --network host"
        ]
    );
}
