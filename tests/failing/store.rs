//! Tools that write to the store, or to an archive.

use std::{collections::BTreeSet, ops::ControlFlow};

use testkit::{Sandbox, Snapshot};

use super::{Run, Share, Trial, fails};

/// With fixed times of files and images, every run makes the same bytes.
const EPOCH: &str = "export SOURCE_DATE_EPOCH=1000000000;";

/// Every file of the store and beside it, except the store's lists, which contain times, and its locks.
const FILES: &str = "find . -path ./root/containers -prune -o -not -name '*lock' -not -path './root/images/.recent.json' -not -path './root/cache/files*' \
    -not -path './data/*' -not -path ./trace -not -path ./document -not -path ./saved.tar -printf '%y %m %p\\n'";

/// Blobs whose content does not match their name.
const FALSE_BLOBS: &str = "cd root/images/blobs/sha256 2> /dev/null && sha256sum * 2> /dev/null | \
    while read -r sum name; do test $sum = $name || echo $name; done";

/// A tool that makes an image whose name ends with `new`, or one that leaves `busybox` unchanged.
pub(crate) struct Store {
    setup: &'static str,
    tool: &'static str,
    makes: bool,
}

impl Store {
    pub(crate) fn makes(setup: &'static str, tool: &'static str) -> Self {
        Self { setup, tool, makes: true }
    }

    pub(crate) fn keeps(setup: &'static str, tool: &'static str) -> Self {
        Self { setup, tool, makes: false }
    }

    /// Makes every call fail. Then the same tool runs without faults.
    pub(crate) fn fails(&self, share: Share) {
        fails(self, share);
    }

    /// Whether the tool writes a file elsewhere, and nothing to the store.
    fn is_export(&self) -> bool {
        self.tool.contains(" -o ")
    }

    /// What is wrong with the store, whatever the result of the run.
    fn wrong_store(&self, sandbox: &Sandbox) -> String {
        let mut complaint = String::new();
        let false_blobs = sandbox.sh(FALSE_BLOBS).stdout;
        if !false_blobs.is_empty() {
            complaint += &format!("false blobs: {false_blobs}\n");
        }
        let verified = sandbox.sh("test ! -e root/images/oci-layout || img-verify > /dev/null");
        if verified.status != 0 {
            complaint += &format!("img-verify: {}\n", verified.stderr);
        }
        let skopeo = r#"test ! -e root/images/oci-layout || jq -r \
            '.manifests[].annotations["org.opencontainers.image.ref.name"] // empty' root/images/index.json |
            while read -r name; do skopeo inspect --raw "oci:root/images:$name" > /dev/null || exit 1; done"#;
        let read = sandbox.sh(skopeo);
        if read.status != 0 {
            complaint += &format!("skopeo: {}\n", read.stderr);
        }
        complaint
    }

    /// What is wrong with the archive, whatever the result of the run.
    fn wrong_archive(&self, sandbox: &Sandbox, run: &Run) -> String {
        let exists = sandbox.directory().join("saved.tar").exists();
        let is_whole = sandbox.sh("tar -tf saved.tar > /dev/null").status == 0;
        match (run.outcome.status, exists) {
            (0, true) | (_, false) if exists == is_whole => String::new(),
            // Written and synced, but not reported: only the last line failed.
            (_, true) if is_whole => String::new(),
            _ => format!("the archive exists: {exists}, and is whole: {is_whole}\n"),
        }
    }
}

/// The digest of the new image in the list of images. Empty if it is missing.
fn listed(sandbox: &Sandbox) -> String {
    let new = r#"select(.references | any(endswith("new:latest")))"#;
    sandbox
        .sh(&format!("test ! -e root/images/oci-layout || img-ls | jq -r '.images[] | {new} | .digest'"))
        .stdout
}

fn lines(sandbox: &Sandbox) -> BTreeSet<String> {
    sandbox.sh(FILES).ok().lines().map(str::to_owned).collect()
}

impl Trial for Store {
    fn tool(&self) -> &'static str {
        self.tool.split(' ').next().unwrap()
    }

    fn name(&self) -> String {
        self.tool.to_owned()
    }

    fn sandbox(&self) -> Sandbox {
        let sandbox = Sandbox::with_busybox();
        sandbox.sh(self.setup).ok();
        if !self.is_export() {
            sandbox.sh("cp -a root start").ok();
        }
        sandbox
    }

    fn ready(&self, sandbox: &Sandbox) {
        if self.is_export() {
            sandbox.sh("rm -f saved.tar").ok();
        } else {
            sandbox.sh("rm -rf root && cp -a start root").ok();
        }
    }

    fn script(&self, prefix: &str) -> String {
        format!("{EPOCH} {prefix} {} > document", self.tool)
    }

    fn clean(&self, sandbox: &Sandbox) {
        assert!(!self.makes || !listed(sandbox).is_empty());
    }

    fn judge(&self, sandbox: &Sandbox, before: &Snapshot, run: &Run) -> ControlFlow<String, String> {
        let mut complaint = self.wrong_store(sandbox);
        let now = listed(sandbox);
        if self.makes && run.outcome.status == 0 && now.is_empty() {
            complaint += "it says it made an image, and there is none\n";
        }
        if self.is_export() {
            complaint += &self.wrong_archive(sandbox, run);
        }
        sandbox.sh("img-gc -q --grace 0s > /dev/null").ok();
        let after = lines(sandbox);
        let again = sandbox.sh(&self.script(""));
        let is_gone = self.tool.contains("img-rm") && !again.stderr.is_empty();
        if again.status != 0 && !is_gone {
            complaint += &format!("then in peace: {}\n", again.stderr);
        }
        if self.makes && !now.is_empty() && listed(sandbox) != now {
            complaint += "it made another image than in peace\n";
        }
        sandbox.sh("img-gc -q --grace 0s > /dev/null").ok();
        let whole = lines(sandbox);
        let mut left: Vec<_> = after.difference(&whole).collect();
        // The next tool that unpacks a half-unpacked layer first removes it.
        left.retain(|line| !line.contains("/layers/."));
        if !left.is_empty() {
            complaint += &format!("left after img-gc: {left:?}\n");
        }
        complaint += &before.difference(&sandbox.snapshot());
        ControlFlow::Continue(complaint)
    }
}
