//! Foreign programs on the host of a [`Sandbox`]: Debian's docker-registry, and podman.

use std::fs;

use serde_json::{Value, json};

use crate::{Outcome, Sandbox};

/// The command for `podman run`, with limits that work where hard limits cannot be raised.
pub const PODMAN_RUN: &str = "podman --runtime runc run --ulimit nofile=1024:1024 --ulimit nproc=1024:1024";

impl Sandbox {
    /// Starts a registry on this port of 127.0.0.1, and waits until it listens. It keeps its repositories in
    /// the directory `data`. `configuration` is added to its configuration (docker-registry's config.yml).
    ///
    /// # Panics
    /// If the registry cannot be started.
    #[track_caller]
    pub fn start_registry(&self, port: u16, data: &str, mut configuration: Value) {
        configuration["version"] = json!(0.1);
        configuration["http"]["addr"] = json!(format!("127.0.0.1:{port}"));
        configuration["storage"]["filesystem"] = json!({"rootdirectory": self.directory().join(data)});
        fs::write(self.directory().join(format!("{port}.yml")), configuration.to_string()).unwrap();
        self.sh(&format!(
            "docker-registry serve {port}.yml > {port}.log 2>&1 &
            for try in $(seq 100); do
                grep -q ':{port:04X} .* 0A ' /proc/net/tcp && break
                sleep 0.05
            done"
        ))
        .ok();
    }

    /// Prepares podman, with a directory `rootfs` for a container that has sh, ip, nc and others. `network` and
    /// `engine` are lines for these tables of containers.conf(5). `$PWD` in them is the directory of the
    /// sandbox.
    ///
    /// # Panics
    /// If something cannot be made.
    #[track_caller]
    pub fn prepare_podman(&self, network: &str, engine: &str) {
        self.sh(&format!(
            "mkdir -p /var/lib/containers && mount -t tmpfs tmpfs /var/lib/containers
            mkdir -p rootfs/bin rootfs/etc rootfs/proc rootfs/sys rootfs/dev rootfs/run rootfs/tmp
            cp /bin/busybox rootfs/bin
            for applet in sh ip nc cat sleep nslookup; do ln -s busybox rootfs/bin/$applet; done
            cat > containers.conf <<X
[network]
{network}
[engine]
{engine}
cgroup_manager = \"cgroupfs\"
events_logger = \"file\"
X"
        ))
        .ok();
    }

    /// Runs a script with podman as [`Sandbox::prepare_podman`] has set it up.
    pub fn podman(&self, script: &str) -> Outcome {
        self.sh(&format!("export CONTAINERS_CONF=$PWD/containers.conf\n{script}"))
    }

    /// Removes the parent cgroup that podman leaves. Cgroups belong to the machine, not to the sandbox.
    pub fn remove_podmans_cgroups(&self) {
        let remove = "for try in $(seq 100); do
                find /sys/fs/cgroup -depth -type d -path '*/libpod_parent*' -exec rmdir {} + 2> /dev/null && break
                sleep 0.05
            done";
        self.sh(remove).ok();
    }
}
