//! A snapshot of a sandbox: everything that a tool could leave behind.

use std::{collections::BTreeMap, fmt, fs, os::unix::fs::MetadataExt, path::Path, process::Command};

use crate::Sandbox;

/// The state of a sandbox, sorted by kind. Each line describes one thing. Two snapshots are equal if nothing
/// was left behind or lost.
///
/// Not included: images, unpacked layers (with the lowest, `mount-points`) and the build cache, which outlive
/// a container by contract; locks, which are empty files without meaning; counters and times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    kinds: BTreeMap<&'static str, Vec<String>>,
}

impl Snapshot {
    pub(crate) fn take(sandbox: &Sandbox) -> Self {
        let ip = |arguments: &str| network(sandbox, &format!("ip {arguments}"));
        let pid = sandbox.pid();
        let mut kinds = BTreeMap::from([
            ("link", ip("-details -oneline link show").iter().map(|line| settled(line)).collect()),
            ("address", addresses(&ip("-oneline address show"))),
            ("route", routes(&ip("route show table all"))),
            ("rule", ip("rule show")),
            ("nftables", network(sandbox, "nft --stateless list ruleset")),
            ("sysctl", network(sandbox, "sysctl -a --pattern 'ip_forward$|forwarding$|route_localnet$'")),
            ("mount", mounts(pid)),
            ("process", processes(pid)),
            ("held port", held_ports(pid)),
            ("reserved port", network(sandbox, "cat /proc/sys/net/ipv4/ip_local_reserved_ports")),
        ]);
        let mut files = Vec::new();
        list(&sandbox.run(), "", &["stave/locks"], &mut files);
        kinds.insert("file in /run", files);
        let mut files = Vec::new();
        list(&sandbox.root(), "", &["images", "layers", "cache", "mount-points"], &mut files);
        // Builds work in this directory. Anything in it counts as left behind.
        files.retain(|line| !line.starts_with("build (mode 40700,"));
        kinds.insert("file in STAVE_ROOT", files);
        for lines in kinds.values_mut() {
            lines.sort();
        }
        Self { kinds }
    }

    /// The lines of one kind: `link`, `address`, `route`, `rule`, `nftables`, `sysctl`, `mount`, `process`,
    /// `held port`, `reserved port`, `file in /run`, `file in STAVE_ROOT`.
    pub fn of(&self, kind: &str) -> &[String] {
        self.kinds.get(kind).map_or(&[], Vec::as_slice)
    }

    /// The difference: lines only in `later` (`+`), and lines only in this snapshot (`-`). Empty if both are
    /// equal.
    pub fn difference(&self, later: &Self) -> String {
        let mut difference = String::new();
        for (kind, before) in &self.kinds {
            let after = later.of(kind);
            for (sign, these, those) in [('-', before.as_slice(), after), ('+', after, before.as_slice())] {
                for line in surplus(these, those) {
                    difference += &format!("{sign} {kind}: {line}\n");
                }
            }
        }
        difference
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kinds.iter().try_for_each(|(kind, lines)| {
            lines.iter().try_for_each(|line| writeln!(formatter, "{kind}: {line}"))
        })
    }
}

/// The lines of `these` that are missing in `those`, or occur less often there.
fn surplus<'a>(these: &'a [String], those: &[String]) -> Vec<&'a String> {
    let mut those: Vec<_> = those.iter().collect();
    let mut rest = Vec::new();
    for line in these {
        match those.iter().position(|other| *other == line) {
            Some(at) => drop(those.swap_remove(at)),
            None => rest.push(line),
        }
    }
    rest
}

/// The lines that a command prints in the sandbox's network. The command runs outside the sandbox's pid
/// namespace, so that it does not appear in the snapshot.
fn network(sandbox: &Sandbox, command: &str) -> Vec<String> {
    let output = Command::new("nsenter")
        .args(["--target", &sandbox.pid().to_string(), "--net", "--mount", "/bin/sh", "-c", command])
        .output()
        .unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(|line| line.trim_end().to_owned()).collect()
}

/// The keys for this network namespace in the maps of held ports (the crate `hold`), which are outside of the
/// sandbox.
fn held_ports(pid: u32) -> Vec<String> {
    let namespace = fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
    let enter = move || {
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        bpf::namespace_cookie().unwrap()
    };
    let cookie = std::thread::spawn(enter).join().unwrap();
    let places = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
    let Some(top) = places.iter().find(|place| Path::new(place).join("cgroup.controllers").exists()) else {
        return Vec::new();
    };
    let top = fs::File::open(top).unwrap();
    let mut held = Vec::new();
    for (_, maps) in bpf::Program::attached(&top, bpf::Attachment::Bind4, "stave_hold").unwrap() {
        // The map of another test, which has been removed in the meantime.
        let Ok(map) = bpf::Map::<16, 8>::by_id(maps[0]) else { continue };
        let keys = map.keys().unwrap();
        held.extend(
            keys.iter().filter(|key| key[..8] == cookie.to_ne_bytes()).map(|key| format!("{:?}", &key[8..])),
        );
    }
    held
}

/// Removes what the kernel changes by itself: the carrier, which depends on the ports of a bridge, the
/// bridge's timers, and the limits that a bridge takes from its ports.
fn settled(line: &str) -> String {
    let mut kept = Vec::new();
    let mut words = line.split_whitespace();
    while let Some(word) = words.next() {
        match word {
            "linkdown" => {}
            "state" | "tso_max_size" | "tso_max_segs" => drop(words.next()),
            _ if word.ends_with("_timer") => drop(words.next()),
            _ if word.starts_with('<') => {
                let flags = word.trim_matches(['<', '>']).split(',');
                kept.extend(flags.filter(|flag| !["NO-CARRIER", "LOWER_UP", "M-DOWN"].contains(flag)));
            }
            _ => kept.push(word),
        }
    }
    kept.join(" ")
}

/// Removes routes of link-local addresses, see [`addresses`].
fn routes(lines: &[String]) -> Vec<String> {
    let by_itself = |line: &&String| line.contains("fe80:") || line.contains("multicast ff00::/8");
    lines.iter().filter(|line| !by_itself(line)).map(|line| settled(line)).collect()
}

/// Removes lifetimes, and the link-local addresses that the kernel adds some time after a link is up.
fn addresses(lines: &[String]) -> Vec<String> {
    let lines = lines.iter().filter(|line| !line.contains(" inet6 fe80:"));
    lines.map(|line| line.split('\\').next().unwrap_or_default().trim_end().to_owned()).collect()
}

fn mounts(pid: u32) -> Vec<String> {
    let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    // Without the ids, which differ each time: root, mount point, options, then the file system after the dash.
    let rest = |line: &str| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned();
    // An overlay has an id of its own in the file system when it is mounted for the first time, and none when it is mounted again.
    table.lines().map(|line| rest(line).replace(",uuid=on", "")).collect()
}

/// The command lines of all processes in the sandbox, except zombies, which their parents have yet to reap.
fn processes(pid: u32) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/root/proc")).unwrap() {
        let path = entry.unwrap().path();
        if !path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit)) {
            continue;
        }
        // A process that ends in the meantime counts as gone.
        let (Ok(stat), Ok(arguments)) =
            (fs::read_to_string(path.join("stat")), fs::read(path.join("cmdline")))
        else {
            continue;
        };
        let zombie =
            stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" Z") || rest.starts_with(" X"));
        if !zombie {
            lines.push(
                String::from_utf8_lossy(&arguments).replace('\0', " ").trim_end().chars().take(120).collect(),
            );
        }
    }
    lines
}

/// Files and directories below `top`, except those below the `except`ed paths.
fn list(top: &Path, below: &str, except: &[&str], lines: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(top.join(below)) else { return };
    for entry in entries {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        if except.contains(&path.as_str()) {
            continue;
        }
        let Ok(metadata) = entry.metadata() else { continue };
        lines.push(format!(
            "{path} (mode {:o}, owner {}:{})",
            metadata.mode(),
            metadata.uid(),
            metadata.gid()
        ));
        if metadata.is_dir() {
            list(top, &path, except, lines);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_whatever_was_left() {
        let sandbox = Sandbox::new();
        let before = sandbox.snapshot();
        assert_eq!(before.difference(&sandbox.snapshot()), "");
        for (script, line) in [
            ("ip link add left0 type bridge", "+ link: "),
            ("ip address add 198.51.100.1/24 dev out0", "+ address: "),
            ("ip route add 203.0.113.0/24 via 192.0.2.2", "+ route: "),
            ("ip rule add from 198.51.100.1 lookup 7", "+ rule: "),
            ("ip netns add left", "+ file in /run: netns/left"),
            ("nft add table ip left", "+ nftables: "),
            ("echo 1 > /proc/sys/net/ipv4/ip_forward", "+ sysctl: net.ipv4.ip_forward = 1"),
            ("mount -t tmpfs tmpfs /mnt", "+ mount: "),
            ("sleep 987 > /dev/null 2>&1 &", "+ process: sleep 987"),
            ("mkdir -p /run/stave/leases; touch /run/stave/leases/x", "+ file in /run: stave/leases/x"),
            ("mkdir -p $STAVE_ROOT/containers/x/upper", "+ file in STAVE_ROOT: containers/x/upper"),
            ("ip link delete out0", "- link: "),
        ] {
            sandbox.sh(script).ok();
            let difference = before.difference(&sandbox.snapshot());
            assert!(difference.contains(line), "{script}: {line} is not in\n{difference}");
        }
    }
}
