//! Every changing call of every tool fails once: the tool prints one line and exits with the right status,
//! nothing is left behind, and the store stays readable.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod failing;
mod killing;
mod pipe;

use failing::{Container, Share, Step, Store};

/// A container `base` with a snapshot.
const FORKED: Step = Step {
    host: "layer-apply --id base < busybox.json | union-mount > /dev/null; echo one > $STAVE_ROOT/containers/base/rootfs/file
        union-snapshot base > /dev/null",
    ready: "true",
    script: "",
    done: "true",
    ids: "web",
    removal: "true",
    documents: true,
    stays: false,
};

/// A container `web`, and a fork of it that has changed.
const MERGED: &str = "layer-apply --id web < busybox.json | union-mount | union-snapshot > web.json
    union-fork web --id try > /dev/null; cd $STAVE_ROOT/containers/try/rootfs && echo two > file && rm -r www; cd - > /dev/null";

/// The same, merged.
const MERGING: &str = "layer-apply --id web < busybox.json | union-mount | union-snapshot > /dev/null
    union-fork web --id try > /dev/null; echo two > $STAVE_ROOT/containers/try/rootfs/file; union-merge try > web.json";

/// The same, and no longer mounted.
const MERGED_AND_LOST: &str = "layer-apply --id web < busybox.json | union-mount | union-snapshot > first.json
    union-fork web --id try > /dev/null; echo two > $STAVE_ROOT/containers/try/rootfs/file; union-merge try > web.json
    umount root/containers/web/rootfs; union-mount --repair < first.json > /dev/null";

/// A tool of the user's own, which makes nothing.
const OWN: &str = "mkdir own && printf '#!/bin/sh\\nstep-done own \"$@\"\\n' > own/own && chmod +x own/own";

/// A container with a network.
const NETWORK: Step = Step {
    host: "true",
    ready: "netns-add -n --id web | bridge-attach back --subnet 10.55.0.0/24 > web.json",
    script: "",
    done: "true",
    ids: "web",
    removal: "true",
    documents: true,
    stays: false,
};

/// A container that runs.
const RUNNING: Step = Step {
    host: "true",
    ready: "layer-apply --id web < busybox.json | union-mount | cgroup-limit --pids 50 | ns-exec -d --network none -- sleep 1000 > web.json",
    documents: false,
    ..NETWORK
};

/// A volume, or a network, without a container.
const FILED: Step = Step { ready: "true", ids: "", documents: false, ..NETWORK };

/// A registry with an image.
macro_rules! registry {
    ($then:literal) => {
        concat!(
            r#"printf '%s\n' 'version: 0.1' 'http: {addr: "127.0.0.1:5000"}' 'storage: {filesystem: {rootdirectory: data}}' > registry.yml
            docker-registry serve registry.yml > registry.log 2>&1 &
            for try in $(seq 100); do socat -u OPEN:/dev/null TCP:127.0.0.1:5000 && break; sleep 0.05; done 2> /dev/null
            img-tag -q busybox localhost:5000/new > /dev/null && img-push -q localhost:5000/new > /dev/null &&
            "#,
            $then
        )
    };
}

/// A registry, and an empty store.
const REGISTRY: &str = registry!("rm -r root && mkdir root");

/// A registry, and what is added to its image.
const ADDITIONS: &str =
    registry!("openssl ecparam -name prime256v1 -genkey -noout -out key.pem && echo x > file");

/// Two tests of each: with a sample of the calls, and with all.
macro_rules! fails_at_every_call {
    ($($name:ident => $what:expr;)*) => { $(
        mod $name {
            use super::*;

            #[test]
            fn sample() {
                $what.fails(Share::Sample);
            }

            #[test]
            #[ignore = "fails each call with each error: minutes (scripts/test --all)"]
            fn every_call() {
                $what.fails(Share::All);
            }
        }
    )* };
}

fails_at_every_call! {
    layer_apply => Container::applied(0);
    union_mount => Container::applied(1);
    union_snapshot => Container::applied(2);
    netns_bridge => Container::applied(3);
    veth_pair => Container::applied(4);
    portmap => Container::applied(5);
    link_hosts => Container::applied(6);
    ns_exec => Container::applied(7);
    layer_apply_undo => Container::undone(0);
    union_mount_undo => Container::undone(1);
    union_snapshot_undo => Container::undone(2);
    netns_bridge_undo => Container::undone(3);
    veth_pair_undo => Container::undone(4);
    portmap_undo => Container::undone(5);
    link_hosts_undo => Container::undone(6);
    ns_exec_undo => Container::undone(7);
    layer_apply_repair => Container::repaired(0, "rm -rf root/layers/*");
    union_mount_repair => Container::repaired(1, "umount root/containers/web/rootfs");
    union_snapshot_repair => Container::repaired(
        2,
        "umount root/containers/web/rootfs; union-mount --repair < web.json > /dev/null"
    );
    netns_bridge_repair => Container::repaired(3, "ip netns del web; sleep 0.1; ip link del stave0");
    veth_pair_repair => Container::repaired(4, "ip -n web link del eth0");
    portmap_repair => Container::repaired(5, "nft flush map inet stave published");
    unwind => Container::unwound();
    macvlan_attach => Container::applied(1).on_the_wire();
    macvlan_attach_undo => Container::undone(1).on_the_wire();
    macvlan_attach_repair => Container::repaired(1, "ip -n web link del eth0").on_the_wire();

    link_hosts_repair => Container::repaired(6, "jq -r '.steps[-1].operations[].path // empty' web.json | xargs -r rm -f");

    union_fork => Step { script: "{} union-fork base@1 --id web > after.json", done: "union-fork --check < after.json > /dev/null", ..FORKED };
    union_fork_undo => Step {
        ready: "union-fork base@1 --id web > web.json",
        script: "{} union-fork --undo < web.json > after.json",
        done: "jq -e '.steps == []' after.json",
        ..FORKED
    };
    union_fork_repair => Step {
        ready: "union-fork base@1 --id web > web.json; umount root/containers/web/rootfs",
        script: "{} union-fork --repair < web.json > after.json",
        done: "union-fork --check < web.json > /dev/null",
        ..FORKED
    };
    union_merge => Step {
        ready: MERGED,
        script: "{} union-merge try > after.json",
        done: "grep -qx two $STAVE_ROOT/containers/web/rootfs/file && union-merge --check try > /dev/null",
        ids: "try web",
        ..FORKED
    };
    union_merge_undo => Step {
        ready: MERGING,
        script: "{} union-merge --undo < web.json > after.json",
        done: "! grep -qx two $STAVE_ROOT/containers/web/rootfs/file",
        ids: "try web",
        ..FORKED
    };
    union_merge_repair => Step {
        ready: MERGED_AND_LOST,
        script: "{} union-merge --repair < web.json > after.json",
        done: "union-merge --check < web.json > /dev/null",
        ids: "try web",
        ..FORKED
    };
    union_mount_with_a_volume => Step {
        ready: "layer-apply --id web < busybox.json > web.json",
        script: "{} union-mount -v vol:/www < web.json > after.json",
        done: "test -e $STAVE_ROOT/volumes/vol/data/index.html && union-mount --check < after.json > /dev/null",
        removal: "volume-rm -f vol > /dev/null",
        ..NETWORK
    };
    img_mount => Step {
        host: "mkdir dir",
        ready: "true",
        script: "{} img-mount --id web busybox dir > after.json",
        done: "img-mount --check < after.json > /dev/null",
        ..NETWORK
    };
    img_mount_undo => Step {
        host: "mkdir dir",
        ready: "img-mount --id web busybox dir > web.json",
        script: "{} img-mount --undo dir > after.json",
        done: "! mountpoint -q dir",
        ..NETWORK
    };
    volume_create => Step {
        script: "{} volume-create vol > after.json",
        done: "test -d $STAVE_ROOT/volumes/vol/data",
        removal: "volume-rm -f vol > /dev/null",
        ..FILED
    };
    volume_rm => Step {
        ready: "volume-create vol > /dev/null",
        script: "{} volume-rm vol > after.json",
        done: "test ! -e $STAVE_ROOT/volumes/vol",
        removal: "volume-rm -f vol > /dev/null",
        ..FILED
    };
    network_create => Step {
        script: "{} network-create back > after.json",
        done: "jq -e .name $STAVE_ROOT/networks/back.json",
        removal: "if test -e $STAVE_ROOT/networks/back.json; then network-rm back > /dev/null; fi",
        ..FILED
    };
    network_rm => Step {
        ready: "network-create back > /dev/null",
        script: "{} network-rm back > after.json",
        done: "test ! -e $STAVE_ROOT/networks/back.json",
        removal: "if test -e $STAVE_ROOT/networks/back.json; then network-rm back > /dev/null; fi",
        ..FILED
    };
    container_start => Step {
        ready: "layer-apply --id web < busybox.json | union-mount | ns-exec -d --network none -- sleep 1000 > web.json; container-stop -t 0 web > /dev/null",
        script: "{} container-start web > after.json",
        done: "pgrep -x sleep > /dev/null",
        stays: true,
        ..RUNNING
    };
    container_stop => Step { script: "{} container-stop -t 0 web > after.json", done: "! pgrep -x sleep", ..RUNNING };
    container_update => Step {
        script: "{} container-update --pids 60 web > after.json",
        done: "path=$(jq -r .cgroup.path web.json); cat /sys/fs/cgroup$path/pids.max /sys/fs/cgroup/pids$path/pids.max 2> /dev/null | grep -qx 60",
        ..RUNNING
    };
    container_rename => Step {
        script: "{} container-rename web shop > after.json",
        done: "test \"$(container-ls --format '{name}' web)\" = shop",
        ..RUNNING
    };
    container_pause => Step {
        script: "{} container-pause web > after.json",
        done: "path=$(jq -r .cgroup.path web.json); cd /sys/fs/cgroup
            cat .$path/cgroup.freeze unified$path/cgroup.freeze freezer$path/freezer.state 2> /dev/null | grep -Eqx '1|FROZEN'",
        ..RUNNING
    };
    container_cp => Step {
        host: "echo x > file",
        script: "{} container-cp file web:/added > after.json",
        done: "grep -qx x $STAVE_ROOT/containers/web/rootfs/added",
        ..RUNNING
    };
    step_begin => Step {
        host: OWN,
        ready: "netns-add -n --id web > web.json",
        script: "{} step-begin own < web.json > after.json",
        done: "jq -e '.steps[-1].tool == \"own\"' after.json > /dev/null",
        ids: "--with own web",
        ..NETWORK
    };
    step_done => Step {
        host: OWN,
        ready: "netns-add -n --id web | step-begin own > web.json",
        script: "{} step-done own < web.json > after.json",
        done: "jq -e '.steps[-1].state == \"done\"' after.json > /dev/null",
        ids: "--with own web",
        ..NETWORK
    };
    net_repair => Step {
        ready: "netns-bridge -n --id web | veth-pair > web.json; ip link del stave0",
        script: "{} net-repair web > after.json",
        done: "netns-bridge --check < web.json | veth-pair --check > /dev/null",
        documents: false,
        ..NETWORK
    };
    netns_add_repair => Step {
        ready: "netns-add -n --id web > web.json; ip netns del web",
        script: "{} netns-add --repair < web.json > after.json",
        done: "netns-add --check < web.json > /dev/null",
        ..NETWORK
    };
    cgroup_limit_repair => Step {
        ready: "cgroup-limit -n --id web --pids 50 > web.json; path=$(jq -r .cgroup.path web.json)
            rmdir /sys/fs/cgroup$path /sys/fs/cgroup/*$path 2> /dev/null; ! cgroup-limit --check < web.json > /dev/null 2>&1",
        script: "{} cgroup-limit --repair < web.json > after.json",
        done: "cgroup-limit --check < web.json > /dev/null",
        ..NETWORK
    };
    netns_add => Step { ready: "true", script: "{} netns-add -n --id web > after.json", done: "netns-add --check < after.json > /dev/null", ..NETWORK };
    netns_add_undo => Step {
        ready: "netns-add -n --id web > web.json",
        script: "{} netns-add --undo < web.json > after.json",
        done: "jq -e '.steps == []' after.json",
        ..NETWORK
    };
    bridge_attach => Step {
        ready: "netns-add -n --id web > web.json",
        script: "{} bridge-attach back --subnet 10.55.0.0/24 < web.json > after.json",
        done: "bridge-attach --check < after.json > /dev/null",
        ..NETWORK
    };
    bridge_attach_undo => Step {
        script: "{} bridge-attach --undo < web.json > after.json",
        done: "jq -e '[.steps[].tool] == [\"netns-add\"]' after.json",
        ..NETWORK
    };
    bridge_attach_repair => Step {
        ready: "netns-add -n --id web | bridge-attach back --subnet 10.55.0.0/24 > web.json; ip -n web link del eth0",
        script: "{} bridge-attach --repair < web.json > after.json",
        done: "bridge-attach --check < web.json > /dev/null",
        ..NETWORK
    };
    egress_allow => Step {
        script: "{} egress-allow 10.0.0.0/8 < web.json > after.json",
        done: "egress-allow --check < after.json > /dev/null",
        stays: true,
        ..NETWORK
    };
    egress_allow_repair => Step {
        ready: "netns-add -n --id web | bridge-attach back --subnet 10.55.0.0/24 | egress-allow 10.0.0.0/8 > web.json
            pkill -x egress-allow; while pgrep -x egress-allow > /dev/null; do sleep 0.01; done; nft delete table netdev stave_egress_web",
        script: "{} egress-allow --repair < web.json > after.json",
        done: "egress-allow --check < web.json > /dev/null",
        stays: true,
        ..NETWORK
    };
    egress_allow_undo => Step {
        ready: "netns-add -n --id web | bridge-attach back --subnet 10.55.0.0/24 | egress-allow 10.0.0.0/8 > web.json",
        script: "{} egress-allow --undo < web.json > after.json",
        done: "! nft list tables | grep stave_egress",
        ..NETWORK
    };
    name_serve => Step {
        script: "{} name-serve < web.json > after.json",
        done: "name-serve --check < after.json > /dev/null",
        stays: true,
        ..NETWORK
    };
    name_serve_repair => Step {
        ready: "netns-add -n --id web | bridge-attach back --subnet 10.55.0.0/24 | name-serve > web.json
            pkill -x name-serve; while pgrep -x name-serve > /dev/null; do sleep 0.01; done",
        script: "{} name-serve --repair < web.json > after.json",
        done: "name-serve --check < web.json > /dev/null",
        stays: true,
        ..NETWORK
    };
    name_serve_undo => Step {
        ready: "netns-add -n --id web | bridge-attach back --subnet 10.55.0.0/24 | name-serve > web.json",
        script: "{} name-serve --undo < web.json > after.json",
        done: "jq -e '.names == null' after.json",
        ..NETWORK
    };
    unwind_networks => Step {
        ready: "netns-add -n --id web | bridge-attach back --subnet 10.55.0.0/24 | bridge-attach front --subnet 10.57.0.0/24 |
            portmap -p 8080:80 | egress-allow 10.0.0.0/8 | name-serve | cgroup-limit --pids 50 > web.json",
        script: "{} unwind web > after.json",
        done: "jq -e '.steps == []' after.json && test ! -e $STAVE_RUN/web.json",
        ..NETWORK
    };
    cgroup_limit => Step {
        ready: "true",
        script: "{} cgroup-limit -n --id web --pids 50 > after.json",
        done: "cgroup-limit --check < after.json > /dev/null",
        ..NETWORK
    };
    cgroup_limit_undo => Step {
        ready: "cgroup-limit -n --id web --pids 50 > web.json",
        script: "{} cgroup-limit --undo < web.json > after.json",
        done: "jq -e '.steps == []' after.json",
        ..NETWORK
    };

    img_load => Store::makes(
        "img-tag busybox new && img-save -q new -o archive.tar && rm -r root && mkdir root",
        "img-load -q archive.tar",
    );
    img_build => Store::makes(
        "layer-apply --id first < busybox.json | unwind > /dev/null; mkdir context; echo two > context/file
         printf 'FROM busybox\\nRUN echo one > /one\\nCOPY file /two\\nENV three=3\\n' > context/Dockerfile",
        "img-build -q --network none -t new context",
    );
    img_pull => Store::makes(
        REGISTRY,
        "img-pull -q localhost:5000/new",
    );
    img_pull_and_unpack => Store::makes(
        REGISTRY,
        "img-pull -q --apply localhost:5000/new",
    );
    img_attach => Store::keeps(ADDITIONS, "img-attach -q --artifact-type text/x.mark localhost:5000/new file:text/plain");
    img_sign => Store::keeps(ADDITIONS, "img-sign -q --key key.pem localhost:5000/new");
    img_export => Store::keeps("true", "img-export -q -o saved.tar busybox");
    img_tag => Store::makes("true", "img-tag -q busybox new");
    img_commit => Store::makes(
        "layer-apply --id web < busybox.json | union-mount > web.json; echo x > root/containers/web/rootfs/added
         umount root/containers/web/rootfs",
        "img-commit -q -t new < web.json",
    );
    img_edit => Store::makes("true", "img-edit -q --label a=b -t new busybox");
    img_convert => Store::makes("true", "img-convert -q --compression zstd -t new busybox");
    img_index => Store::makes("true", "img-index -q new busybox");
    img_copy => Store::makes("img-copy -q store:busybox oci:layout:busybox > /dev/null", "img-copy -q oci:layout:busybox store:new");
    img_rm => Store::keeps("img-tag -q busybox gone", "img-rm -q gone");
    img_gc => Store::keeps(
        "mkdir gone; touch gone/x; tar -C gone -c . | img-load -q -t gone - | layer-apply --id first | unwind > /dev/null; img-rm -q gone",
        "img-gc -q --grace 0s",
    );
    img_push => Store::keeps(
        "printf '%s\\n' 'version: 0.1' 'http: {addr: \"127.0.0.1:5000\"}' 'storage: {filesystem: {rootdirectory: data}}' > registry.yml
         docker-registry serve registry.yml > registry.log 2>&1 &
         for try in $(seq 100); do socat -u OPEN:/dev/null TCP:127.0.0.1:5000 && break; sleep 0.05; done 2> /dev/null
         img-tag -q busybox localhost:5000/new > /dev/null",
        "img-push -q localhost:5000/new",
    );
    img_verify_remove => Store::keeps("true", "img-verify --remove");
    img_save => Store::keeps("true", "img-save -q busybox -o saved.tar");
    layer_diff => Store::keeps(
        "layer-apply --id web < busybox.json | union-mount > web.json; echo x > root/containers/web/rootfs/added",
        "layer-diff -q -o saved.tar < web.json",
    );
}
