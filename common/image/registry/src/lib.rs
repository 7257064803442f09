//! Images from and to registries: the OCI distribution-spec as a client, over blocking HTTP.
//!
//! * [`Client`]: how registries are reached (TLS, credentials, mirrors, retries).
//! * [`pull`]: a name in a registry → an image in the store. Several layers arrive at once, and can be read while they
//!   arrive.
//! * [`Client::get`]: a file on any web server.
//! * [`Client::tags`], [`Client::named`], [`Client::referrers`], [`Client::delete`]: what a registry has, and taking it out.
//! * [`Client::log_in`], and [`credentials`]: names and passwords, in the files of Docker, podman and skopeo.
//! * [`push`]: an image in the store → a name in a registry.
//! * [`Display`]: what the user sees of it.
//!
//! Everything that a registry sends is hostile input. Nothing counts before its digest was checked; manifests have a
//! limited size; connections to silent servers are aborted; credentials go only to the host that they belong to.

mod auth;
mod certificates;
mod client;
pub mod copy;
pub mod credentials;
pub mod delete;
pub mod display;
mod download;
mod error;
mod fetch;
mod http;
mod login;
mod manifest;
mod named;
mod pace;
mod places;
mod progress;
mod proxy;
pub mod pull;
pub mod push;
pub mod referrers;
mod repository;
mod retry;
mod tags;
mod upload;
mod url;

pub use client::{Client, Options};
pub use credentials::Login;
pub use display::Display;
pub use error::Error;
pub use fetch::{Download, Reply};
pub use pace::Pace;
pub use progress::{Event, Progress};
pub use url::{Origin, without_user};
