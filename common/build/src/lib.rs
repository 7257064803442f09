//! Building images from Dockerfiles.
//!
//! [`dockerfile`] is the language.

pub mod dockerfile;
pub mod glob;
pub mod ignore;
