//! Signs an image in a registry with a key, as cosign does.
//!
//! # Does
//! Signs the digest that the name has now, of a manifest or of an index with all that it names. Puts the signature beside
//! the image, at cosign's tag `sha256-DIGEST.sig`. Signatures that are there stay. `img-pull --verify` and `cosign
//! verify` check it.
//! # Reads
//! No document. Reads credentials as `img-pull` does, and the password of an encrypted key from `$COSIGN_PASSWORD` or the
//! terminal.
//! # Adds
//! Nothing; prints `{reference, digest, tag, signatures}`.
//! # Undoes
//! Nothing: others may already have seen the signature. `img-rm --remote NAME:TAG` removes all signatures of the image.
//! # Needs
//! Permission to push to the repository.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use oci::Reference;
use remote::Reach;
use serde_json::{Value, json};
use toolkit::{prelude::*, rows};

/// Sign an image in a registry
#[derive(Parser)]
#[command(name = "img-sign", version, after_help = toolkit::EQUIVALENT_HELP)]
struct Sign {
    #[arg(help = "The image: [HOST[:PORT]/]NAME[:TAG][@DIGEST]", value_name = "NAME", value_parser = |name: &str| name.parse().map(Reference::pinned))]
    image: Reference,
    /// Sign with this private key: cosign's (cosign.key), or a PEM key for ECDSA with P-256
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    common: Common,
}

impl Report for Sign {
    fn common(&self) -> &Common {
        &self.common
    }

    fn report(&self, _: &Context) -> Result<Value> {
        let key = remote::private_key(&self.key)?;
        let signed = self.reach.client().sign(&self.image, &key, &());
        let signed = signed.map_err(|error| remote::hinted(error, self.image.registry()))?;
        Ok(json!({
            "reference": format!("{}@{}", self.image.name(), signed.digest),
            "digest": signed.digest,
            "tag": signed.tag,
            "signatures": signed.count,
        }))
    }

    fn explain(&self, _: &Context) -> Result<Vec<String>> {
        let key = self.key.to_string_lossy();
        let name = self.image.to_string();
        Ok(toolkit::equivalent([operation::words([
            "cosign",
            "sign",
            "--tlog-upload=false",
            "--key",
            &key,
            &name,
        ])]))
    }

    fn shown(&self, report: &Value) -> Option<String> {
        Some(format!("Signed: {}\n", rows::word(&report["reference"])))
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<Sign>()
}
