//! Manual pages (man-pages(7)): what clap knows of the arguments, and behind it exit statuses, environment, files and
//! examples.

mod examples;

use std::io;

use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

/// Variables of the environment, and what they do.
type Variables = &'static [(&'static str, &'static str)];

const EVERYWHERE: Variables = &[
    (
        "STAVE_ROOT",
        "Where images, layers and containers are, as --root; /var/lib/stave by default, or $XDG_DATA_HOME/stave for an ordinary user.",
    ),
    (
        "STAVE_RUN",
        "Where records, locks and leases are until the next restart of the machine, as --run-dir; /run/stave by default, or $XDG_RUNTIME_DIR/stave.",
    ),
    (
        "STAVE_ORIGIN",
        "ended: the namespaces in which a container was started have ended, where that cannot be seen.",
    ),
];
const STORE: Variables = &[(
    "STAVE_SYNC",
    "no: do not wait until the store is on the disk. For stores that may be lost in a power cut.",
)];
const TIME: Variables = &[("SOURCE_DATE_EPOCH", "The time of what is made, in seconds since 1970.")];
const REGISTRY: Variables = &[
    ("DOCKER_CONFIG, REGISTRY_AUTH_FILE", "Where logins are (docs/registries.md)."),
    ("HTTPS_PROXY, HTTP_PROXY, NO_PROXY", "Proxies on the way to registries."),
];
const KEY: Variables = &[("COSIGN_PASSWORD", "The password of an encrypted key.")];

/// The environment that a tool reads, besides [`EVERYWHERE`].
fn environment(tool: &str) -> Vec<Variables> {
    let mut all = vec![EVERYWHERE];
    match tool {
        "img-build" => all.extend([STORE, TIME, REGISTRY]),
        "img-commit" | "img-edit" => all.extend([STORE, TIME]),
        "img-pull" | "img-push" | "img-copy" | "img-rm" => all.extend([STORE, REGISTRY]),
        "img-tags" | "img-digest" | "img-referrers" | "img-login" | "img-logout" | "img-attach" => {
            all.push(REGISTRY)
        }
        "img-sign" => all.extend([REGISTRY, KEY]),
        "img-convert" | "img-index" | "img-load" | "img-save" | "img-tag" | "img-gc" | "img-verify"
        | "layer-diff" => all.push(STORE),
        _ => {}
    }
    all
}

/// Exit statuses (docs/exit-codes.md).
const STATUSES: [(&str, &str); 5] = [
    ("0", "Done."),
    ("1", "Failed. What was made in this step is undone."),
    ("2", "The arguments are wrong, or a document was expected from a terminal."),
    ("3", "An earlier command of the pipe failed. Nothing was done."),
    ("4", "Standard input has no document that this version can read."),
];
/// Those of a tool that runs a command.
const OF_COMMANDS: [(&str, &str); 5] = [
    ("124", "--timeout ended the command."),
    ("125", "The container could not be started, or an earlier command failed."),
    ("126", "The command could not be executed."),
    ("127", "The command was not found."),
    ("other", "That of the command; 128 + N if signal N ended it."),
];

const FILES: [(&str, &str); 4] = [
    ("$STAVE_ROOT/images", "Images, as an OCI image layout."),
    ("$STAVE_ROOT/containers/ID/record.json", "What was made for a container that can be started again."),
    ("$STAVE_RUN/ID.json", "The record of a container: what each step did, for undo."),
    ("/etc/stave.toml, ~/.config/stave.toml", "Defaults of flags (docs/defaults.md)."),
];

/// Whether it is the name of a tool that has [`Common`](crate::Common)'s flags.
pub(crate) fn is_tool(name: &str) -> bool {
    !examples::of(name).is_empty()
}

/// Writes the manual page of a tool.
///
/// # Errors
/// When `out` fails.
pub(crate) fn write(tool: &str, command: clap::Command, out: &mut Vec<u8>) -> io::Result<()> {
    Man::new(command).render(out)?;
    let mut page = Roff::new();
    let statuses = if matches!(tool, "ns-exec" | "container-exec") { &OF_COMMANDS } else { &STATUSES };
    list(&mut page, "EXIT STATUS", statuses);
    page.control("SH", ["ENVIRONMENT"]);
    for variables in environment(tool) {
        terms(&mut page, variables);
    }
    list(&mut page, "FILES", &FILES);
    let examples = examples::of(tool);
    if !examples.is_empty() {
        page.control("SH", ["EXAMPLES"]);
    }
    for (says, command) in examples {
        page.control("PP", []).text([roman(*says)]);
        page.control("PP", []).control("RS", ["4"]).control("nf", []).text([roman(*command)]);
        page.control("fi", []).control("RE", []);
    }
    page.to_writer(out)
}

fn list(page: &mut Roff, title: &str, entries: &[(&str, &str)]) {
    page.control("SH", [title]);
    terms(page, entries);
}

fn terms(page: &mut Roff, entries: &[(&str, &str)]) {
    for (term, says) in entries {
        page.control("TP", []).text([bold(*term)]).text([roman(*says)]);
    }
}
