use nix::sys::stat::{Mode, umask};

/// Adds "not writable for group and others" to the mask of this process's new files and directories.
pub fn keep_others_out() {
    let writable = Mode::S_IWGRP | Mode::S_IWOTH;
    let before = umask(writable);
    umask(before | writable);
}
