//! Makes a network namespace.
//!
//! # Does
//! Makes `/run/netns/<id>`, with `lo` up. bridge-attach attaches it to networks. Without a network, the
//! container reaches only itself.
//! # Reads
//! `id`.
//! # Adds
//! `network`: mode, namespace.
//! # Undoes
//! The namespace.
//! # Needs
//! Root (CAP_NET_ADMIN, CAP_SYS_ADMIN).

use std::process::ExitCode;

use anyhow::{Result, bail};
use attachment::{Container, NetworkOperation};
use clap::Parser;
use document::{Document, members};
use toolkit::{Common, Context, Filter, Plan};

/// Make a network namespace
#[derive(Parser)]
#[command(name = "netns-add", version)]
struct NetnsAdd {
    #[command(flatten)]
    common: Common,
}

impl Filter for NetnsAdd {
    type Adds = members::Namespace;
    type Operation = NetworkOperation;

    fn common(&self) -> &Common {
        &self.common
    }

    fn plan(&self, context: &Context, document: &Document) -> Result<Plan<Self>> {
        // A member of the wrong type gives its own error.
        if document.get::<members::Network>()?.is_some() {
            bail!("the container has a network already");
        }
        let container = Container::new(&context.scope, &context.id, document)?;
        let (adds, namespace) = attachment::namespace(&container)?;
        Ok(Plan { adds, operations: vec![namespace.into()] })
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::filter::<NetnsAdd>()
}
