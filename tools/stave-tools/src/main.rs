//! All tools in one file.
//!
//! # Does
//! What the tool does by whose name it is started: through a link, or as `stave-tools TOOL [ARG]…`. A link may have another
//! name if it leads to one with a tool's name, as CNI plugins have. `--list` prints the tools. Every tool stays a crate
//! and a program of its own; this one has their sources as modules, so that they share one file and its pages.
//! # Reads
//! What that tool reads.
//! # Adds
//! What that tool adds.
//! # Undoes
//! What that tool undoes.
//! # Needs
//! Links beside its own file: the tools start each other from there.

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::{ffi::OsStrExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// The most links that lead from a name to this file (as the kernel's limit, path_resolution(7)).
const LINKS: usize = 40;

/// Declares the tools: their names, modules and sources.
macro_rules! tools {
    ($($name:literal $module:ident $source:literal;)*) => {
        $(#[path = $source] mod $module;)*

        /// The tools' names.
        const NAMES: &[&str] = &[$($name),*];

        /// The main of a tool.
        fn tool(name: &str) -> Option<fn() -> ExitCode> {
            match name {
                $($name => Some($module::main),)*
                _ => None,
            }
        }
    };
}

tools! {
    "bridge-attach" bridge_attach "../../bridge-attach/src/main.rs";
    "cgroup-limit" cgroup_limit "../../cgroup-limit/src/main.rs";
    "container-attach" container_attach "../../container-attach/src/main.rs";
    "container-cp" container_cp "../../container-cp/src/main.rs";
    "container-events" container_events "../../container-events/src/main.rs";
    "container-exec" container_exec "../../container-exec/src/main.rs";
    "container-kill" container_kill "../../container-kill/src/main.rs";
    "container-logs" container_logs "../../container-logs/src/main.rs";
    "container-ls" container_ls "../../container-ls/src/main.rs";
    "container-pause" container_pause "../../container-pause/src/main.rs";
    "container-rename" container_rename "../../container-rename/src/main.rs";
    "container-start" container_start "../../container-start/src/main.rs";
    "container-stats" container_stats "../../container-stats/src/main.rs";
    "container-stop" container_stop "../../container-stop/src/main.rs";
    "container-top" container_top "../../container-top/src/main.rs";
    "container-update" container_update "../../container-update/src/main.rs";
    "container-wait" container_wait "../../container-wait/src/main.rs";
    "egress-allow" egress_allow "../../egress-allow/src/main.rs";
    "egress-log" egress_log "../../egress-log/src/main.rs";
    "img-attach" img_attach "../../img-attach/src/main.rs";
    "img-build" img_build "../../img-build/src/main.rs";
    "img-commit" img_commit "../../img-commit/src/main.rs";
    "img-convert" img_convert "../../img-convert/src/main.rs";
    "img-copy" img_copy "../../img-copy/src/main.rs";
    "img-diff" img_diff "../../img-diff/src/main.rs";
    "img-digest" img_digest "../../img-digest/src/main.rs";
    "img-edit" img_edit "../../img-edit/src/main.rs";
    "img-export" img_export "../../img-export/src/main.rs";
    "img-gc" img_gc "../../img-gc/src/main.rs";
    "img-history" img_history "../../img-history/src/main.rs";
    "img-index" img_index "../../img-index/src/main.rs";
    "img-inspect" img_inspect "../../img-inspect/src/main.rs";
    "img-load" img_load "../../img-load/src/main.rs";
    "img-login" img_login "../../img-login/src/main.rs";
    "img-logout" img_logout "../../img-logout/src/main.rs";
    "img-ls" img_ls "../../img-ls/src/main.rs";
    "img-mount" img_mount "../../img-mount/src/main.rs";
    "img-pull" img_pull "../../img-pull/src/main.rs";
    "img-push" img_push "../../img-push/src/main.rs";
    "img-referrers" img_referrers "../../img-referrers/src/main.rs";
    "img-rm" img_rm "../../img-rm/src/main.rs";
    "img-save" img_save "../../img-save/src/main.rs";
    "img-sign" img_sign "../../img-sign/src/main.rs";
    "img-tag" img_tag "../../img-tag/src/main.rs";
    "img-tags" img_tags "../../img-tags/src/main.rs";
    "img-verify" img_verify "../../img-verify/src/main.rs";
    "ipvlan-attach" ipvlan_attach "../../ipvlan-attach/src/main.rs";
    "layer-apply" layer_apply "../../layer-apply/src/main.rs";
    "layer-diff" layer_diff "../../layer-diff/src/main.rs";
    "link-hosts" link_hosts "../../link-hosts/src/main.rs";
    "macvlan-attach" macvlan_attach "../../macvlan-attach/src/main.rs";
    "name-serve" name_serve "../../name-serve/src/main.rs";
    "net-guard" net_guard "../../net-guard/src/main.rs";
    "net-peers" net_peers "../../net-peers/src/main.rs";
    "net-repair" net_repair "../../net-repair/src/main.rs";
    "netns-add" netns_add "../../netns-add/src/main.rs";
    "netns-bridge" netns_bridge "../../netns-bridge/src/main.rs";
    "network-create" network_create "../../network-create/src/main.rs";
    "network-ls" network_ls "../../network-ls/src/main.rs";
    "network-rm" network_rm "../../network-rm/src/main.rs";
    "ns-exec" ns_exec "../../ns-exec/src/main.rs";
    "oci-runtime" oci_runtime "../../oci-runtime/src/main.rs";
    "portmap" portmap "../../portmap/src/main.rs";
    "space-ls" space_ls "../../space-ls/src/main.rs";
    "stave-netavark" stave_netavark "../../stave-netavark/src/main.rs";
    "step-begin" step_begin "../../step-begin/src/main.rs";
    "step-done" step_done "../../step-done/src/main.rs";
    "union-diff" union_diff "../../union-diff/src/main.rs";
    "union-fork" union_fork "../../union-fork/src/main.rs";
    "union-merge" union_merge "../../union-merge/src/main.rs";
    "union-mount" union_mount "../../union-mount/src/main.rs";
    "union-snapshot" union_snapshot "../../union-snapshot/src/main.rs";
    "unwind" unwind "../../unwind/src/main.rs";
    "veth-pair" veth_pair "../../veth-pair/src/main.rs";
    "volume-create" volume_create "../../volume-create/src/main.rs";
    "volume-ls" volume_ls "../../volume-ls/src/main.rs";
    "volume-rm" volume_rm "../../volume-rm/src/main.rs";
}

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// The file's own name.
const OWN: &str = "stave-tools";

fn main() -> ExitCode {
    #[cfg(target_env = "musl")]
    // SAFETY: no other thread runs yet, and nobody else calls it.
    unsafe {
        dlmalloc::enable_alloc_after_fork()
    };
    let mut words = env::args_os();
    let called = words.next().unwrap_or_default();
    if let Some(tool) = named(&called) {
        return tool();
    }
    let first = words.next();
    match first.as_deref().map(|word| word.to_string_lossy()).as_deref() {
        Some("--list") => toolkit::say(OWN, &(NAMES.join("\n") + "\n")).into(),
        Some("--version" | "-V") => {
            toolkit::say(OWN, &format!("{OWN} {}\n", env!("CARGO_PKG_VERSION"))).into()
        }
        Some("--help" | "-h") => {
            let usage = format!("usage: {OWN} TOOL [ARG]…, or a link to it with the name of a TOOL");
            toolkit::say(OWN, &format!("{usage}\n\n{}\n", NAMES.join(" "))).into()
        }
        // Each tool takes its name from the first word.
        Some(name) if tool(name).is_some() => {
            let error = Command::new("/proc/self/exe").arg0(name).args(words).exec();
            eprintln!("{OWN}: run {name}: {error}");
            ExitCode::FAILURE
        }
        name => {
            let called = Path::new(&called).file_name().unwrap_or_default().to_string_lossy();
            match name.filter(|_| called == OWN) {
                None if called == OWN => eprintln!("{OWN}: it takes the name of a tool"),
                name => eprintln!("{OWN}: there is no tool {:?}", name.unwrap_or(&called)),
            }
            eprintln!("hint: `{OWN} --list` lists the tools");
            ExitCode::from(2)
        }
    }
}

/// The tool whose name the program was started by, or the next link on the way to its file.
fn named(called: &OsString) -> Option<fn() -> ExitCode> {
    let mut path = PathBuf::from(called);
    for _ in 0..LINKS {
        if let Some(tool) = path.file_name().and_then(|name| tool(name.to_str()?)) {
            return Some(tool);
        }
        path = path.parent()?.join(fs::read_link(found(&path)?).ok()?);
    }
    None
}

/// Where the shell has found the program.
fn found(path: &Path) -> Option<PathBuf> {
    if path.as_os_str().as_bytes().contains(&b'/') {
        return Some(path.to_owned());
    }
    env::split_paths(&env::var_os("PATH")?).map(|place| place.join(path)).find(|place| place.exists())
}
