//! Flags of `docker build` that ask for what img-build does anyway. They have no effect, and are not in the
//! help. Other values are rejected by name (docs/differences.md).

use clap::Args;

#[derive(Debug, Clone, Args)]
pub(crate) struct DockerFlags {
    /// The image is always put into the store.
    #[arg(long, hide = true)]
    load: bool,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = attestation)]
    provenance: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = attestation)]
    sbom: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = removal)]
    rm: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = removal)]
    force_rm: Option<bool>,
    #[arg(long, hide = true, value_parser = call)]
    call: Option<bool>,
}

fn attestation(text: &str) -> Result<bool, String> {
    match text {
        "false" | "0" => Ok(false),
        _ => Err("attestations are not made: only false is possible".to_owned()),
    }
}

fn removal(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" => Ok(true),
        _ => Err("a step leaves no container; write --keep-failed to keep that of a failed one".to_owned()),
    }
}

fn call(text: &str) -> Result<bool, String> {
    match text {
        "build" => Ok(true),
        "check" => Err("write --lint".to_owned()),
        _ => Err("only build is possible; --dry-run lists the steps, and --lint likely mistakes".to_owned()),
    }
}
