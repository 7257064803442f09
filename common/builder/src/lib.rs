//! Builds images from Dockerfiles.
//!
//! [`dockerfile`] parses the language, [`copy`] carries out COPY and ADD, and [`executor`] builds. [`commit`]
//! makes an image of a container's changes. [`edit`] changes an image without a build, and
//! [`convert`] its compression and the form of its manifest.

pub mod arguments;
pub mod cache;
mod child;
pub mod commit;
pub mod config;
pub mod container;
pub mod convert;
pub mod copy;
pub mod dockerfile;
pub mod edit;
pub mod error;
mod excerpt;
pub mod executor;
pub mod glob;
pub mod ignore;
pub mod lint;
mod manifest;
pub mod metadata;
mod moment;
pub mod network;
mod normalize;
pub mod plan;
pub mod progress;
pub mod workspace;

pub use error::Error;
pub use executor::{
    Built, CacheFrom, CacheTo, Context, Named, Network, Options, Pull, Secret, Several, Surroundings, build,
    build_for, join_trees, write_tree,
};
pub use manifest::Format;
pub use progress::Form as ProgressForm;
