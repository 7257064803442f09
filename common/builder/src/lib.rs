//! Building images from Dockerfiles.
//!
//! [`dockerfile`] is the language, [`copy`] does COPY and ADD, [`executor`] builds. [`commit`] makes an image of a
//! container's changes.

pub mod arguments;
pub mod cache;
pub mod commit;
pub mod config;
pub mod copy;
pub mod dockerfile;
pub mod error;
mod excerpt;
pub mod executor;
pub mod glob;
pub mod ignore;
mod manifest;
pub mod metadata;
pub mod network;
pub mod plan;
pub mod progress;
pub mod workspace;

pub use error::Error;
pub use executor::{Built, Context, Named, Network, Options, Pull, Secret, Surroundings, build, write_tree};
