//! Images from and to registries: the OCI distribution-spec as a client, over blocking HTTP.
//!
//! * [`Client`]: how registries are reached (TLS, credentials, mirrors, retries).
//! * [`pull`]: a name in a registry → an image in the store. Layers come side by side and can be read while they come.
//! * [`push`]: an image in the store → a name in a registry.
//! * [`Display`]: what people see of it.
//!
//! Whatever a registry sends is hostile input: nothing counts before its digest was checked, a manifest has a size that
//! it may have, a server that says nothing is given up, and credentials go to the host only that they are meant for.

mod auth;
mod client;
mod credentials;
pub mod display;
mod download;
mod error;
mod http;
mod manifest;
mod pace;
mod places;
mod progress;
mod proxy;
pub mod pull;
pub mod push;
mod repository;
mod retry;
mod upload;
mod url;

pub use client::{Client, Options};
pub use display::Display;
pub use error::Error;
pub use pace::Pace;
pub use progress::{Event, Progress};
