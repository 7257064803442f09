//! Lists the differences between two images.
//!
//! # Does
//! Compares the configurations and annotations of two images, and their layers one by one: each path's kind,
//! mode, owner, time, size, target, attributes and content. Layers with the same content are not read; only
//! their compression can differ.
//! # Reads
//! No document.
//! # Adds
//! Nothing; prints `{"equal", "differences": [{"layer", "path", "what", "a", "b"}]}`. Settings have no
//! `layer`. What only one image has is `null` for the other. `--table` prints a line for each difference.
//! # Undoes
//! Nothing.
//! # Needs
//! Read access to `$STAVE_ROOT/images`.

mod layers;
mod settings;

use std::process::ExitCode;

use clap::Parser;
use oci::{Image, Layout, Platform};
use serde::Serialize;
use serde_json::{Value, json};
use toolkit::prelude::*;

/// List the differences between two images
#[derive(Parser)]
#[command(name = "img-diff", version)]
struct Diff {
    /// The first image: a name, an id, or the first digits of an id
    #[arg(value_name = "A")]
    a: String,
    /// The second image
    #[arg(value_name = "B")]
    b: String,
    /// Take this platform of multi-platform images: os/architecture[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// Print a line for each difference instead of JSON
    #[arg(long)]
    table: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Difference {
    /// The number of the layer, from 0. None for a setting.
    #[serde(skip_serializing_if = "Option::is_none")]
    layer: Option<usize>,
    /// The path of the file, or of the setting.
    path: String,
    /// The property that differs.
    what: &'static str,
    a: Value,
    b: Value,
}

impl Report for Diff {
    fn common(&self) -> &Common {
        &self.common
    }

    fn explain(&self, _: &Context) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn report(&self, context: &Context) -> Result<Value> {
        let layout = Layout::look(context.scope.root.join("images"))?;
        let image =
            |name: &str| -> Result<Image> { Ok(layout.image(&layout.find(name)?, self.platform.as_ref())?) };
        let (a, b) = (image(&self.a)?, image(&self.b)?);
        let mut differences = Vec::new();
        let is_equal = a.descriptor.digest() == b.descriptor.digest();
        if !is_equal {
            settings::compare("", &a.raw_configuration, &b.raw_configuration, &mut differences);
            let [own, other] =
                [&a, &b].map(|image| json!(image.manifest.annotations().clone().unwrap_or_default()));
            settings::compare("annotations", &own, &other, &mut differences);
            layers::compare(&layout, &a, &b, &mut differences)?;
        }
        Ok(json!({"equal": is_equal, "differences": differences}))
    }

    fn text(&self, report: &Value) -> Option<String> {
        self.table.then(|| rows(report))
    }

    fn shown(&self, report: &Value) -> Option<String> {
        Some(rows(report))
    }
}

fn rows(report: &Value) -> String {
    let row = |difference: &Value| {
        let layer =
            difference["layer"].as_u64().map_or("settings".to_owned(), |layer| format!("layer {layer}"));
        let (path, what) = (&difference["path"], &difference["what"]);
        let text = |value: &Value| operation::printable_word(value.as_str().unwrap_or_default()).into_owned();
        format!("{layer}\t{}\t{}\t{}\t{}\n", text(path), text(what), difference["a"], difference["b"])
    };
    report["differences"].as_array().into_iter().flatten().map(row).collect()
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<Diff>()
}
