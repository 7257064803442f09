//! The table of docs/security.md: what a default container looks like from inside, compared with the peers.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fmt::Write as _};

use testkit::{Sandbox, repository};

/// The script, and what it runs.
const LOOK: &str = include_str!("posture/look.sh");
const LIMITS: &str = include_str!("posture/limits.awk");
const KEYS: &str = include_str!("posture/keys.c");

/// The columns, each with the command that runs `sh look.sh` on the root file system `rootfs`, as a user would start it.
const COLUMNS: [(&str, &str); 5] = [
    ("stave", "ns-exec -n --rootfs $PWD/rootfs --env HOST_NS -- sh /look.sh"),
    ("docker run", "docker -H unix:///run/d.sock run --rm -e HOST_NS --network none look sh /look.sh"),
    (
        "podman run",
        "podman --root /run/podman/root --runroot /run/podman/run run --rm --runtime runc --ulimit nofile=1024:1024 \
         --ulimit nproc=1024:1024 --network none -e HOST_NS --rootfs $PWD/rootfs sh /look.sh",
    ),
    (
        "runc spec",
        "cd bundle && runc spec && jq --arg ns \"$HOST_NS\" '.process.terminal = false | .process.args = [\"sh\", \"/look.sh\"] | \
         .process.env += [\"HOST_NS=\" + $ns] | .process.rlimits = [] | .root.path = \"../rootfs\"' config.json > c && \
         mv c config.json && runc --root /run/runc run look",
    ),
    (
        "bwrap --unshare-all",
        "bwrap --unshare-all --bind rootfs / --dev /dev --proc /proc --setenv HOST_NS \"$HOST_NS\" sh /look.sh",
    ),
];

/// A sandbox with the root file system in `rootfs`.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    let directory = sandbox.directory().to_owned();
    std::fs::write(directory.join("busybox.tar"), testkit::busybox()).unwrap();
    for (name, text) in [("look.sh", LOOK), ("limits.awk", LIMITS), ("keys.c", KEYS)] {
        std::fs::write(directory.join(name), text).unwrap();
    }
    sandbox
        .sh("mkdir rootfs bundle && tar -xf busybox.tar -C rootfs && cp look.sh limits.awk rootfs/ && \
             cc -static -o rootfs/keys keys.c")
        .ok();
    sandbox
}

/// The cells of a column, by aspect.
fn look(sandbox: &Sandbox, command: &str) -> BTreeMap<String, String> {
    let host = "HOST_NS=$(for kind in cgroup ipc mnt net pid time user uts; do echo $kind=$(readlink /proc/self/ns/$kind); done
        busybox awk -f limits.awk /proc/self/limits; rootfs/keys)
        HOST_NS=$(echo $HOST_NS); export HOST_NS";
    let said = sandbox.sh(&format!("{host}; {command}")).ok();
    let lines = said.lines().filter_map(|line| line.split_once(':'));
    lines.map(|(aspect, value)| (aspect.to_owned(), value.trim().to_owned())).collect()
}

/// The aspects in the order of the script.
fn aspects(sandbox: &Sandbox) -> Vec<String> {
    let said = sandbox.sh("ns-exec -n --rootfs $PWD/rootfs -- sh /look.sh").ok();
    said.lines().filter_map(|line| line.split_once(':')).map(|(aspect, _)| aspect.to_owned()).collect()
}

/// The rows of the table in docs/security.md: aspect, then one cell for each column.
fn documented() -> BTreeMap<String, Vec<String>> {
    let text = std::fs::read_to_string(repository().join("docs/security.md")).unwrap();
    let rows = text.lines().skip_while(|line| !line.starts_with("| from inside |")).skip(2);
    let cells =
        |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    rows.take_while(|line| line.starts_with('|'))
        .map(cells)
        .map(|row| (row[0].clone(), row[1..].to_vec()))
        .collect()
}

#[test]
fn the_table_shows_what_a_container_looks_like_from_inside() {
    let sandbox = sandbox();
    let found = look(&sandbox, COLUMNS[0].1);
    let documented = documented();
    assert_eq!(documented.len(), found.len());
    for (aspect, value) in found {
        assert_eq!(documented[&aspect][0], value, "{aspect}");
    }
}

/// Starts dockerd in the sandbox, with the root file system as the image `look`.
const DOCKERD: &str = "mkdir -p /run/docker-data && (dockerd --data-root /run/docker-data --exec-root /run/docker-exec --pidfile /run/d.pid \
    -H unix:///run/d.sock --bridge none --iptables=false --storage-driver vfs > dockerd.log 2>&1 &)
    for try in $(seq 100); do docker -H unix:///run/d.sock version > /dev/null 2>&1 && break; sleep 0.2; done
    tar -C rootfs -c . | docker -H unix:///run/d.sock import - look > /dev/null";

/// `POSTURE=write cargo test --test posture -- --ignored` writes the table.
#[test]
#[ignore = "starts every peer (scripts/test --all)"]
fn the_table_shows_what_the_peers_look_like() {
    let sandbox = sandbox();
    sandbox.sh(DOCKERD).ok();
    let order = aspects(&sandbox);
    let columns: Vec<_> = COLUMNS.iter().map(|(_, command)| look(&sandbox, command)).collect();
    let mut table = format!(
        "| from inside |{}\n",
        COLUMNS.iter().fold(String::new(), |all, (name, _)| all + " " + name + " |")
    );
    writeln!(table, "| --- |{}", " --- |".repeat(COLUMNS.len())).unwrap();
    for aspect in order {
        let cells = columns.iter().map(|column| column.get(&aspect).map_or("", String::as_str));
        writeln!(table, "| {aspect} |{}", cells.fold(String::new(), |all, cell| all + " " + cell + " |"))
            .unwrap();
    }
    let path = repository().join("docs/security.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let start = text.find("| from inside |").unwrap();
    let length: usize =
        text[start..].split_inclusive('\n').take_while(|line| line.starts_with('|')).map(str::len).sum();
    if std::env::var_os("POSTURE").is_some_and(|value| value == "write") {
        std::fs::write(&path, format!("{}{table}{}", &text[..start], &text[start + length..])).unwrap();
    } else {
        assert_eq!(&text[start..start + length], table, "docs/security.md shows something else");
    }
}
