//! Building images from Dockerfiles.
//!
//! [`dockerfile`] is the language, [`copy`] what COPY and ADD do.

pub mod arguments;
pub mod config;
pub mod copy;
pub mod dockerfile;
pub mod glob;
pub mod ignore;
pub mod metadata;
