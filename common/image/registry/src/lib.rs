//! A client for image registries (OCI distribution-spec), over blocking HTTP.
//!
//! * [`Client`]: connects to registries (TLS, credentials, mirrors, retries).
//! * [`pull`]: copies an image from a registry into the store. Several layers are downloaded at once, and can
//!   be read while they arrive.
//! * [`push`]: copies an image from the store to a registry.
//! * [`copy`]: copies an image from one registry to another.
//! * [`Client::tags`], [`Client::named`], [`Client::referrers`], [`Client::delete`]: list and remove what a
//!   registry has.
//! * [`Client::attach`], [`Client::sign`], [`Client::verify`]: artifacts and signatures beside an image.
//! * [`Client::log_in`], and [`credentials`]: names and passwords, in the files of Docker, podman and skopeo.
//! * [`Client::get`]: downloads a file from any web server.
//! * [`Display`]: shows the progress to the user.
//!
//! All data from a registry is untrusted. No content is used before its digest has been checked. Manifests
//! have a size limit. Connections to silent servers are aborted. Credentials are sent only to their own host.

pub mod artifact;
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
mod identity;
mod login;
mod manifest;
mod named;
mod pace;
mod places;
mod policy;
mod progress;
pub mod proof;
mod proxy;
pub mod pull;
pub mod push;
pub mod referrers;
mod repository;
mod retry;
pub mod signature;
mod sources;
mod tags;
mod upload;
mod url;
mod wanted;

pub use client::{Client, Options};
pub use credentials::Login;
pub use display::Display;
pub use error::Error;
pub use fetch::{Download, Reply};
pub use pace::Pace;
pub use policy::Policy;
pub use progress::{Event, Progress};
pub use url::{Origin, decode, without_user};
