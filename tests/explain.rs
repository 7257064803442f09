//! `--explain` names everything that the real run changes. Each tool runs under strace. Everything that the
//! traced system calls changed must appear in the explanation.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use testkit::Sandbox;

/// System calls that change something that outlives the process, or that set up the container.
const CALLS: &str = "mkdir,mkdirat,mknod,mknodat,symlink,symlinkat,link,linkat,rename,renameat,renameat2,unlink,unlinkat,\
    rmdir,open,openat,openat2,creat,mount,umount2,move_mount,fsconfig,fsopen,mount_setattr,pivot_root,unshare,setns,clone,clone3,\
    sethostname,sendto,sendmsg,chown,lchown,fchownat,chmod,fchmodat,truncate,ftruncate,write";

/// One thing that a system call changed, in words that the explanation must contain.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Change {
    /// Words that must all appear in one line of the explanation.
    words: Vec<String>,
    /// The line of the trace.
    call: String,
}

/// The tools of the pipe, with their arguments.
const PIPE: [&str; 12] = [
    "layer-apply --id web",
    "union-mount",
    "union-snapshot",
    "union-snapshot",
    "cgroup-limit --pids 99",
    "netns-bridge",
    "veth-pair",
    "bridge-attach back --subnet 10.55.0.0/24 --icc=false",
    "bridge-attach far",
    "macvlan-attach --parent out0 --gateway-priority -9",
    "portmap -p 10080:80",
    "link-hosts --link db:base",
];

#[test]
fn explanations_name_all_that_a_run_changes() {
    let sandbox = Sandbox::with_busybox();
    std::fs::write(sandbox.directory().join("busybox.tar"), testkit::busybox()).unwrap();
    let other = "img-load -q -t busybox busybox.tar | layer-apply --id db | union-mount | netns-bridge --bridge other0 --subnet 10.8.0.0/24 | veth-pair";
    sandbox.sh(&format!("{other} | ns-exec -d -- sleep 1000 > db.json && rm -r \"$STAVE_ROOT\"/layers")).ok();
    // A network of several hosts, with one on another host, whose addresses the host answers for.
    let network =
        "--subnet 10.57.0.0/16 --ip-range 10.57.1.0/24 --gateway 10.57.1.1 --vxlan 7 --vxlan-local 192.0.2.1";
    let routed = "--subnet6 2001:db8::5:0:0/112 --gateway-mode routed --ndp-proxy out0";
    sandbox.sh(&format!("network-create far {network} {routed} && mkdir -p /run/stave/peers")).ok();
    let peer = r#"{"network":"far","hosts":[{"name":"b","address":"192.0.2.2","stations":[
        {"mac":"02:42:0a:39:02:02","addresses":["10.57.2.2"],"names":["db"]}]}]}"#;
    sandbox.sh(&format!("echo '{peer}' > /run/stave/peers/far.json")).ok();
    // The layers are removed for this run, so that layer-apply has something to do.
    let mut document = sandbox.sh("img-load -q -t busybox busybox.tar").ok();
    for command in PIPE.into_iter().chain(["ns-exec -d -- sleep 0.1"]) {
        document = explained(&sandbox, command, &document);
    }
}

/// Forks, merges and mounts of images.
#[test]
fn explanations_of_tools_that_start_with_a_container_or_an_image() {
    let sandbox = Sandbox::with_busybox();
    sandbox
        .sh("layer-apply --id web < busybox.json | union-mount | union-snapshot > web.json; mkdir dir")
        .ok();
    for command in ["union-fork --id copy web", "union-merge copy", "img-mount --id seen busybox dir"] {
        explained(&sandbox, command, "");
    }
    sandbox.sh("unwind seen copy web > /dev/null").ok();
    let mut document = sandbox.sh("netns-bridge -n --id listed | veth-pair").ok();
    for command in ["egress-allow --sni a.example 192.0.2.7", "portmap -p 10080:80"] {
        document = explained(&sandbox, command, &document);
    }
    sandbox.sh("unwind listed > /dev/null").ok();
}

#[test]
fn explanations_of_images_in_one_file() {
    let sandbox = Sandbox::with_busybox();
    let mut document = std::fs::read_to_string(sandbox.directory().join("busybox.json")).unwrap();
    for command in ["layer-apply --id web --format erofs", "union-mount", "ns-exec -d -- sleep 0.1"] {
        document = explained(&sandbox, command, &document);
    }
}

/// Image tools change files below `$STAVE_ROOT` whose names are digests that are not known in advance. So the
/// explanation names the directories. `buildah run` stands for the mounts and namespaces of a step.
#[test]
fn explanations_of_image_tools_name_all_places() {
    let sandbox = Sandbox::with_busybox();
    std::fs::write(sandbox.directory().join("busybox.tar"), testkit::busybox()).unwrap();
    std::fs::create_dir(sandbox.directory().join("web")).unwrap();
    let dockerfile = "FROM busybox\nRUN echo a > /a\nCOPY Dockerfile /\nWORKDIR /w\nCMD [\"sh\"]\n";
    std::fs::write(sandbox.directory().join("web/Dockerfile"), dockerfile).unwrap();
    for (command, steps) in [
        ("img-load -q -t other busybox.tar", ""),
        ("img-build -q -t web --iidfile image.id web", "buildah run"),
        ("img-save -q -o web.tar web", ""),
        ("img-load -q -t again web.tar", ""),
        ("img-tag again another", ""),
        ("img-rm another", ""),
    ] {
        let Traced { explanation, trace, .. } = traced(&sandbox, command, "");
        let (mut places, mut surroundings) = (BTreeSet::new(), 0);
        for call in joined(&trace) {
            let (name, arguments) = call.split_once('(').unwrap_or((&call, ""));
            match name {
                "mount" | "move_mount" | "umount2" | "fsopen" | "unshare" | "sethostname" | "pivot_root" => {
                    surroundings += 1;
                }
                _ if !changed_by(&call).is_empty() => places.extend(place(&sandbox, arguments)),
                _ => {}
            }
        }
        assert!(!places.is_empty(), "{command}: the trace shows no change, so it shows nothing:\n{trace}");
        // With only a tag or a name, the store is Docker's own place for images. Here that place is `images`.
        let store = |place: &String| place == "images" && explanation.contains("\ndocker ");
        let unnamed: Vec<_> =
            places.iter().filter(|place| !explanation.contains(*place) && !store(place)).collect();
        assert!(unnamed.is_empty(), "{command} changes what it does not explain: {unnamed:?}\n{explanation}");
        assert!(
            surroundings == 0 || !steps.is_empty() && explanation.contains(steps),
            "{command} mounts, and does not explain it:\n{explanation}"
        );
    }
}

#[test]
fn explanations_of_a_volume() {
    let sandbox = Sandbox::with_busybox();
    explained(&sandbox, "volume-create --label a=b kept", "");
    assert_eq!(sandbox.sh("volume-create --explain kept").ok(), "", "it exists");
    // The commands make the same volume.
    sandbox.sh("volume-create --explain --label a=b typed | sh").ok();
    let labels = "volume-ls | jq -c '.[] | [.name, .labels]'";
    assert_eq!(sandbox.sh(labels).ok(), "[\"kept\",{\"a\":\"b\"}]\n[\"typed\",{\"a\":\"b\"}]\n");
    let modes = "cd $STAVE_ROOT/volumes && stat -c '%a' . kept kept/users kept/data && stat -c '%a' . typed typed/users typed/data";
    assert_eq!(sandbox.sh(modes).ok(), "700\n700\n700\n755\n".repeat(2));
}

/// `--explain` of such a tool prints what another program would do, and the help says so.
#[test]
fn tools_that_print_commands_of_others_say_so() {
    let sandbox = Sandbox::new();
    for tool in std::fs::read_dir(testkit::repository().join("tools")).unwrap() {
        let tool = tool.unwrap();
        let main = std::fs::read_to_string(tool.path().join("src/main.rs")).unwrap_or_default();
        if main.contains("toolkit::equivalent(") {
            let name = tool.file_name().into_string().unwrap();
            let help = sandbox.sh(&format!("{name} --help")).ok();
            assert!(
                help.contains("--explain prints commands of other programs to the same effect"),
                "{name}"
            );
        }
    }
    let heading = "# commands of other programs to the same effect:\n";
    for (command, line) in [
        ("img-rm --remote r.example/a:1", "curl -X DELETE https://r.example/v2/a/manifests/1"),
        ("img-login r.example", "skopeo login r.example"),
        (
            "img-login -u me --password-stdin --authfile f r.example",
            "skopeo login --authfile f --username me --password-stdin r.example",
        ),
        ("img-logout --authfile f r.example", "skopeo logout --authfile f r.example"),
    ] {
        assert_eq!(
            sandbox.sh(&format!("{command} --explain")).ok(),
            format!("{heading}{line}\n"),
            "{command}"
        );
    }
}

/// The directory below `$STAVE_ROOT`, or the file in the current directory, of a call's last path. None for
/// the mounts and namespaces of a step.
fn place(sandbox: &Sandbox, arguments: &str) -> Option<String> {
    let path = quoted(arguments).pop()?;
    // A relative path is joined to its directory, which strace shows: `3</root/images>`.
    let from = arguments.split('<').nth(1).and_then(|rest| rest.split('>').next()).unwrap_or_default();
    let whole = if path.starts_with('/') { path } else { format!("{from}/{path}") };
    let root = sandbox.root().display().to_string();
    if let Some(below) = whole.strip_prefix(&format!("{root}/")) {
        return Some(below.split('/').next()?.to_owned());
    }
    let here = sandbox.directory().display().to_string();
    let file = whole.strip_prefix(&format!("{here}/"))?;
    Some(file.split('.').next()?.to_owned())
}

/// Commands that explain, and their standard input.
const EXPLAINED: [(&str, &str); 46] = [
    ("img-build --explain -t new context", ""),
    ("img-load --explain -t new -", "busybox.json"),
    ("img-pull --explain localhost:1/x", ""),
    ("img-push --explain busybox localhost:1/x", ""),
    ("img-save --explain -o new.tar busybox", ""),
    ("img-tag --explain busybox third", ""),
    ("img-rm --explain second", ""),
    ("img-gc --explain --grace 0s", ""),
    ("img-verify --explain", ""),
    ("img-verify --explain --remove", ""),
    ("img-ls --explain", ""),
    ("img-history --explain busybox", ""),
    ("img-diff --explain busybox busybox", ""),
    ("img-edit --explain --flatten -t new busybox", ""),
    ("img-convert --explain --format docker -t new busybox", ""),
    ("img-export --explain busybox", ""),
    ("img-mount --explain busybox /opt", ""),
    ("img-index --explain all busybox", ""),
    ("img-inspect --explain busybox", ""),
    ("img-commit --explain -t new", "web.json"),
    ("layer-diff --explain", "web.json"),
    ("layer-diff --explain upper", ""),
    ("container-ls --explain", ""),
    ("container-attach --explain web", ""),
    ("container-exec --explain web true", ""),
    ("container-cp --explain web:/etc/hostname .", ""),
    ("container-events --explain", ""),
    ("container-kill --explain web", ""),
    ("container-logs --explain web", ""),
    ("container-pause --explain web", ""),
    ("container-rename --explain web shop", ""),
    ("container-start --explain web", ""),
    ("container-start --explain --all", ""),
    ("container-stats --explain web", ""),
    ("container-stop --explain web", ""),
    ("container-top --explain web", ""),
    ("container-update --explain --pids 9 web", ""),
    ("container-wait --explain web", ""),
    ("net-repair --explain --all", ""),
    ("net-guard --explain", ""),
    ("net-peers --explain front --etcd http://192.0.2.1:2379 --host a", ""),
    ("layer-apply --explain --id new", "busybox.json"),
    ("netns-bridge --explain -n", ""),
    ("union-fork --explain web@0", ""),
    ("unwind --explain", "web.json"),
    ("unwind --explain web", ""),
];

#[test]
fn to_explain_is_to_change_nothing() {
    let sandbox = Sandbox::with_busybox();
    let start = "img-tag busybox second && layer-apply --id web < busybox.json | union-mount | ns-exec -d -- sleep 1000 > web.json";
    sandbox.sh(start).ok();
    sandbox.sh("mkdir upper context && echo FROM busybox > context/Dockerfile && echo x > upper/x").ok();
    // An unused blob.
    sandbox.sh("layer-diff upper > /dev/null").ok();
    let everything = "find \"$STAVE_ROOT\" . -xdev -not -name trace -printf '%p %m %s %T@ %C@\\n' | sort";
    let files = sandbox.sh(everything).ok();
    let before = sandbox.snapshot();
    for (command, input) in EXPLAINED {
        let input = if input.is_empty() { "/dev/null" } else { input };
        let outcome = sandbox.sh(&format!("{command} < {input}"));
        // img-load cannot explain a file that is not an archive.
        assert!(outcome.status == 0 || command.starts_with("img-load"), "{command}: {}", outcome.stderr);
        assert!(!outcome.stdout.starts_with(['{', '[']), "{command}: {}", outcome.stdout);
        assert_eq!(sandbox.sh(everything).ok(), files, "{command}");
        assert_eq!(before.difference(&sandbox.snapshot()), "", "{command}");
    }
    assert!(sandbox.sh("img-gc --explain --grace 0s").ok().starts_with("rm "));
    let unwound = sandbox.sh("unwind --explain web").ok();
    let called = |line: &str| line.split(" --undo").next().unwrap().rsplit('/').next().unwrap().to_owned();
    let tools: Vec<String> = unwound.lines().map(called).collect();
    assert_eq!(tools, ["ns-exec", "union-mount", "layer-apply", "img-load"]);
    for flag in ["--undo", "--check", "--repair"] {
        let outcome = sandbox.sh(&format!("unwind {flag} < web.json")).exits(2);
        let line = "unwind: unwind makes nothing that could be undone, checked or repaired";
        assert_eq!(outcome.stderr.lines().next(), Some(line));
        sandbox.sh(&format!("unwind {flag} web")).exits(2);
    }
    assert_eq!(before.difference(&sandbox.snapshot()), "");
}

/// The explanation of a command, the document that it wrote, and its trace.
struct Traced {
    explanation: String,
    after: String,
    trace: String,
}

#[track_caller]
fn traced(sandbox: &Sandbox, command: &str, document: &str) -> Traced {
    let (tool, arguments) = command.split_once(' ').unwrap_or((command, ""));
    let explanation = sandbox.sh_with(&format!("{tool} --explain {arguments}"), document.as_bytes()).ok();
    // strace would wait for the resolver, which lives as long as its container.
    let stays = tool == "egress-allow";
    let follow = if stays { "" } else { "-f" };
    let traced = format!("timeout 60 strace {follow} -y -s 4096 -qq -o trace -e trace={CALLS} {command}");
    let after = sandbox.sh_with(&traced, document.as_bytes()).ok();
    let mut trace = std::fs::read_to_string(sandbox.directory().join("trace")).unwrap();
    if stays {
        trace = trace.lines().map(|line| format!("1 {line}\n")).collect();
    }
    Traced { explanation, after, trace }
}

/// Explains the command, runs it under strace, compares both, and returns the document that the command
/// wrote.
#[track_caller]
fn explained(sandbox: &Sandbox, command: &str, document: &str) -> String {
    let Traced { explanation, after, trace } = traced(sandbox, command, document);
    let changes = changes(&trace);
    let lines: Vec<&str> = explanation.lines().collect();
    let unnamed: Vec<_> = changes
        .iter()
        .filter(|change| !lines.iter().any(|line| change.words.iter().all(|word| line.contains(word))))
        .collect();
    assert!(
        unnamed.is_empty(),
        "{command} changes what it does not explain: {unnamed:#?}\n-- explanation\n{explanation}"
    );
    assert!(!changes.is_empty(), "{command}: the trace shows no change, so it shows nothing:\n{trace}");
    after
}

/// The changes made by the calls in a trace, without duplicates.
fn changes(trace: &str) -> Vec<Change> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    // A file system that was never attached is no change by itself, but writing to it is.
    let attached = trace.contains("move_mount(");
    for call in joined(trace).into_iter().filter(|call| attached || !call.starts_with("fsopen(")) {
        for words in changed_by(&call).into_iter().filter(|words| !words.is_empty()) {
            if seen.insert(words.clone()) {
                found.push(Change { words, call: call.clone() });
            }
        }
    }
    found
}

/// The calls of a trace that succeeded. Calls that strace splits (`<unfinished ...>`, `<... resumed>`) are joined.
fn joined(trace: &str) -> Vec<String> {
    let mut open: Vec<(String, String)> = Vec::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let Some((pid, rest)) = line.split_once(char::is_whitespace) else { continue };
        let mut call = rest.trim_start().to_owned();
        if let Some(start) = call.strip_suffix("<unfinished ...>") {
            open.push((pid.to_owned(), start.to_owned()));
            continue;
        }
        if call.starts_with("<...") {
            let Some(at) = open.iter().position(|(other, _)| other == pid) else { continue };
            let (_, start) = open.remove(at);
            call = start + call.split_once("resumed>").map_or("", |(_, end)| end);
        }
        let failed = call
            .rsplit_once(" = ")
            .is_none_or(|(_, result)| result.starts_with('-') || result.starts_with('?'));
        if !failed && !call.starts_with("---") {
            calls.push(call);
        }
    }
    calls
}

/// The changes of one call: for each thing, the words that name it.
fn changed_by(call: &str) -> Vec<Vec<String>> {
    let (name, arguments) = call.split_once('(').unwrap_or((call, ""));
    match name {
        "mkdir" | "mknod" | "symlink" | "link" | "creat" | "unlink" | "rmdir" | "mkdirat" | "mknodat"
        | "symlinkat" | "linkat" | "unlinkat" | "rename" | "renameat" | "renameat2" => file(arguments),
        "open" | "openat" | "openat2" if arguments.contains("O_CREAT") || arguments.contains("O_TMPFILE") => {
            file(arguments)
        }
        "openat" | "open"
            if ["\"/proc/sys/", "\"sys/", "/sys/fs/cgroup"]
                .iter()
                .any(|sysctl| arguments.contains(sysctl))
                && !arguments.contains("O_RDONLY") =>
        {
            file(arguments)
        }
        "mount" | "move_mount" | "umount2" => file(arguments),
        "fsopen" => quoted(arguments).into_iter().map(|kind| vec!["mount".to_owned(), kind]).collect(),
        "unshare" | "clone" | "clone3" => namespaces(arguments),
        "sethostname" => quoted(arguments).into_iter().map(|name| vec![name]).collect(),
        "sendto" | "sendmsg" if arguments.contains("NETLINK") => netlink(arguments),
        _ => Vec::new(),
    }
}

/// The last component of the last path among the arguments: the thing that was made, removed or mounted on.
fn file(arguments: &str) -> Vec<Vec<String>> {
    let Some(path) = quoted(arguments).pop() else { return Vec::new() };
    let whole = format!("{arguments} {path}");
    // The record and the locks belong to the toolkit, and are the same for every tool. The layer names its
    // content.
    let of_the_toolkit =
        whole.contains("/locks") || path.contains(".json") || path.ends_with("/run/stave") || path == "stave";
    if of_the_toolkit || path == "." || path.is_empty() || whole.contains("/dev/null\"") {
        return Vec::new();
    }
    if whole.contains("/layers") {
        return vec![vec!["layers".to_owned()]];
    }
    let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    // The file is written under another name and then renamed.
    let name = last.trim_start_matches('.');
    vec![vec![name.strip_suffix(".new").unwrap_or(name).to_owned()]]
}

/// `CLONE_NEWPID` as `unshare` spells it.
fn namespaces(arguments: &str) -> Vec<Vec<String>> {
    [
        ("NEWPID", "--pid"),
        ("NEWNS", "--mount"),
        ("NEWUTS", "--uts"),
        ("NEWIPC", "--ipc"),
        ("NEWCGROUP", "--cgroup"),
    ]
    .iter()
    .filter(|(flag, _)| arguments.contains(&format!("CLONE_{flag}")))
    .filter(|_| arguments.contains("CLONE_NEWPID"))
    .map(|(_, option)| vec!["unshare".to_owned(), (*option).to_owned()])
    .collect()
}

/// Names and addresses in a netlink message that makes or removes something. For nf_tables, the kind of
/// object.
fn netlink(arguments: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (attribute, value) in arguments.split("nla_type=").skip(1).filter_map(|part| part.split_once('}')) {
        if ["IFLA_IFNAME", "IFA_LOCAL", "RTA_GATEWAY"].contains(&attribute) && !arguments.contains("RTM_GET")
        {
            found.extend(quoted(value).into_iter().take(1).map(|name| vec![name]));
        }
    }
    for (message, words) in [
        ("NFT_MSG_NEWTABLE", "nft add table"),
        ("NFT_MSG_NEWCHAIN", "nft add chain"),
        ("NFT_MSG_NEWRULE", "nft add rule"),
        ("NFT_MSG_NEWSETELEM", "nft add element"),
    ] {
        if arguments.contains(message) {
            found.push(vec![words.to_owned()]);
        }
    }
    if arguments.contains("NFT_MSG_NEWSET,") {
        found.push(vec!["nft add".to_owned()]);
    }
    found
}

/// The strings among the arguments, without quotes.
fn quoted(arguments: &str) -> Vec<String> {
    arguments.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_trace_is_read_right() {
    let trace = "\
7 mkdirat(AT_FDCWD</>, \"/run/netns\", 0755) = 0
7 mkdirat(AT_FDCWD</>, \"/run/gone\", 0755) = -1 EEXIST (File exists)
7 openat(AT_FDCWD</>, \"/proc/sys/net/ipv4/ip_forward\", O_WRONLY|O_CLOEXEC) = 3</proc/sys/net/ipv4/ip_forward>
7 mount(\"none\", \"/run/netns/web\", <unfinished ...>
8 unshare(CLONE_NEWNS|CLONE_NEWPID) = 0
7 <... mount resumed>NULL, MS_BIND, NULL) = 0
7 sendto(4<NETLINK:[ROUTE:7]>, [{nlmsg_type=RTM_NEWLINK}, [[{nla_len=11, nla_type=IFLA_IFNAME}, \"stave0\"]]], 9, 0, NULL, 0) = 9
";
    let words: Vec<Vec<String>> = changes(trace).into_iter().map(|change| change.words).collect();
    let expected: [&[&str]; 6] =
        [&["netns"], &["ip_forward"], &["unshare", "--pid"], &["unshare", "--mount"], &["web"], &["stave0"]];
    assert_eq!(words, expected);
}
