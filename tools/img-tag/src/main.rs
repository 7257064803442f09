//! Gives an image another name.
//!
//! # Does
//! Adds the name to the store. If another image had the name, it loses the name and stays in the store.
//! # Reads
//! No document.
//! # Adds
//! Nothing; prints `{"reference", "digest"}`.
//! # Undoes
//! Nothing: `img-rm NAME` removes the name.
//! # Needs
//! Write access to `$STAVE_ROOT/images`.

use std::process::ExitCode;

use clap::Parser;
use oci::{Layout, Reference, spec::Descriptor};
use serde_json::{Value, json};
use toolkit::prelude::*;

/// Give an image another name
#[derive(Parser)]
#[command(name = "img-tag", version, after_help = toolkit::EQUIVALENT_HELP)]
struct Tag {
    /// The image: a name, an id, or the first digits of an id
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The additional name
    #[arg(value_name = "NAME")]
    name: Reference,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    common: Common,
}

impl Report for Tag {
    fn common(&self) -> &Common {
        &self.common
    }

    fn report(&self, context: &Context) -> Result<Value> {
        let (layout, descriptor) = self.found(context)?;
        layout.tag(&self.name, &descriptor)?;
        Ok(json!({"reference": self.name, "digest": descriptor.digest()}))
    }

    fn explain(&self, context: &Context) -> Result<Vec<String>> {
        self.found(context)?;
        Ok(toolkit::equivalent([operation::words(["docker", "tag", &self.image, &self.name.to_string()])]))
    }

    fn shown(&self, _: &Value) -> Option<String> {
        Some(String::new())
    }
}

impl Tag {
    fn found(&self, context: &Context) -> Result<(Layout, Descriptor)> {
        if self.name.digest().is_some() {
            bail!("name image {:?}: a name with a digest cannot be given", self.name.to_string());
        }
        let layout = Layout::look(context.scope.root.join("images"))?.with_sync(self.writing.is_synced()?);
        let descriptor = layout.find(&self.image)?;
        Ok((layout, descriptor))
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<Tag>()
}
