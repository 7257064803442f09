//! Builds for several platforms: an image for each, and an index of them, which has the names.

use oci::{Digest, Layout, Platform, index, spec::Descriptor};
use rustix::fs::Mode;

use super::{Builder, Built, Options, cache_transfer::Results, input::Input, store::Store};
use crate::error::{Cause, Error};

/// What a build for several platforms made.
#[derive(Debug, Clone)]
pub struct Several {
    /// The index.
    pub index: Descriptor,
    /// The index's id: its digest.
    pub id: Digest,
    /// The images, in the order of the platforms.
    pub images: Vec<(Platform, Built)>,
}

/// Builds an image for each platform, and puts an index of them into the store. The Dockerfile and a context on standard
/// input are read once. Stages that are the same for several platforms are in the step cache after the first.
///
/// # Errors
/// As [`super::build`]. If one build fails, nothing gets a name.
pub fn build_for(options: &Options, platforms: &[Platform]) -> Result<Several, Error> {
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    let layout = Layout::open_or_create_with(options.root.join("images"), !options.no_sync);
    let layout = layout.map_err(Cause::from)?;
    // From here on, img-gc keeps what is built, although it has no name so far.
    layout.keep_meanwhile(&[]).map_err(Cause::from)?;
    let input = Input::read(options)?;
    input.work(options, |file| {
        let (mut images, mut entries, mut results) = (Vec::new(), Vec::new(), Results::default());
        for (at, platform) in platforms.iter().enumerate() {
            let own = Options {
                platform: Some(platform.clone()),
                tags: Vec::new(),
                is_part: true,
                ..options.clone()
            };
            let builder = Builder::new(&own, &input, file.clone(), || Store::open(&own), None)?;
            let findings = builder.findings()?;
            // The others are the same for each platform.
            for finding in findings.iter().filter(|_| at == 0) {
                builder.progress.warning(&format!("{}:{}: {finding}", input.name, finding.line));
            }
            builder.progress.line(&format!("# Building for {platform}"));
            let (built, own_results) = builder.run_shown()?;
            results.add(own_results);
            entries.push(entry(&layout, &built, platform)?);
            images.push((platform.clone(), built));
        }
        let index = index::write(&layout, &entries, &[]).map_err(Cause::from)?;
        layout.name(&index, &options.tags).map_err(Cause::from)?;
        results.export(options, &layout)?;
        let id = Digest::try_from(index.digest()).map_err(oci::layout::Error::from).map_err(Cause::from)?;
        Ok(Several { index, id, images })
    })
}

/// The index's entry of an image. It is for the platform that it was built for, even if its base is for another one.
fn entry(layout: &Layout, built: &Built, platform: &Platform) -> Result<serde_json::Value, Cause> {
    let mut entry = index::entry(layout, &built.descriptor)?;
    let Platform { os, architecture, variant } = platform;
    let own = entry["platform"].as_object_mut();
    let own = own.ok_or_else(|| serde::ser::Error::custom("an entry has no platform"));
    let own = own.map_err(Cause::Configuration)?;
    own.insert("os".to_owned(), os.clone().into());
    own.insert("architecture".to_owned(), architecture.clone().into());
    match variant {
        Some(variant) => own.insert("variant".to_owned(), variant.clone().into()),
        None => own.remove("variant"),
    };
    Ok(entry)
}
