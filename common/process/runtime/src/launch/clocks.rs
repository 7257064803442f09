//! The time namespace, and the offsets of its clocks from the machine's (time_namespaces(7)).

use std::{fs, os::fd::AsFd};

use oci_spec::runtime::Spec;
use rustix::{
    process::{DumpableBehavior, set_dumpable_behavior},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::{Error, error::Result};

const OFFSETS: &str = "/proc/self/timens_offsets";
const FOR_CHILDREN: &str = "/proc/self/ns/time_for_children";

/// Sets the clocks of the new time namespace of the caller's children, and enters it. No process may be in it
/// before that.
pub(super) fn enter(spec: &Spec) -> Result<()> {
    let offsets = spec.linux().as_ref().and_then(|linux| linux.time_offsets().as_ref());
    let lines: String = offsets
        .into_iter()
        .flatten()
        .map(|(clock, offset)| {
            let (seconds, nanoseconds) =
                (offset.secs().unwrap_or_default(), offset.nanosecs().unwrap_or_default());
            format!("{clock} {seconds} {nanoseconds}\n")
        })
        .collect();
    if !lines.is_empty() {
        // In a user namespace, only a dumpable process can write to its own files in `/proc`.
        let dumpable =
            |behavior| set_dumpable_behavior(behavior).map_err(Error::at("protect", "the process"));
        dumpable(DumpableBehavior::Dumpable)?;
        let written = fs::write(OFFSETS, &lines);
        dumpable(DumpableBehavior::NotDumpable)?;
        written.map_err(Error::at("write", format_args!("{:?} to {OFFSETS:?}", lines.trim_end())))?;
    }
    let namespace =
        fs::File::open(FOR_CHILDREN).map_err(Error::at("open", format_args!("{FOR_CHILDREN:?}")))?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Time))
        .map_err(Error::at("enter", "time namespace"))
}
