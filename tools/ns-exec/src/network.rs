//! Chooses the process's network, its host name, and the files that contain them.

use std::path::Path;

use document::{
    Document, Id,
    members::{Attachment, Egress, Hosts, Names, Network as Member},
};
use runtime::spec;
use toolkit::prelude::*;

use super::{
    files::{self, Content, File},
    names::Gateway,
    request::{Mode, Request},
    sharing,
};

/// The network, the host name and the files in `/etc`.
pub(crate) struct Network {
    pub(crate) network: spec::Network,
    pub(crate) hostname: String,
    pub(crate) files: Vec<File>,
}

pub(crate) fn choose(request: &Request, context: &Context, document: &Document) -> Result<Network> {
    let member: Option<Member> = document.get()?;
    let attachments = document.attachments()?;
    let entries = document.get::<Hosts>()?.unwrap_or_default().entries;
    let own_name = || {
        let short = context.id.chars().take(12).collect();
        request.hostname.clone().unwrap_or(short)
    };
    let (network, name, addresses) = match (&request.network, &member) {
        (Some(_), Some(_)) => {
            let error = anyhow!("the document has a network, and --network names another");
            return Err(hint(error, "leave out --network, or the network tools"));
        }
        (Some(Mode::Container(id)), None) => return shared(request, context, id),
        (Some(Mode::Host), None) => {
            let name = request.hostname.clone().unwrap_or_else(host_name);
            let added = request.names.hosts(Gateway::Loopback)?;
            let files = files::of_host(&name, &entries, added, &request.names.settings());
            return Ok(Network { network: spec::Network::Host, hostname: name, files });
        }
        (None | Some(Mode::None), None) => (spec::Network::None, own_name(), Vec::new()),
        (None, Some(member)) => {
            let addresses = attachments.iter().flat_map(Attachment::addresses).collect();
            (spec::Network::Own(member.namespace.clone()), own_name(), addresses)
        }
    };
    // The default route decides how the container reaches the host.
    let main = attachments.iter().min_by_key(|one| one.metric());
    let dns = main.map(|main| &main.cni.dns);
    // The gateway of a network without a bridge is a router, and not this host.
    let bridges = main.into_iter().chain(&attachments).filter_map(|one| one.on.bridge());
    let mut bridges = bridges.chain(member.as_ref().and_then(|member| member.bridge.as_ref()));
    let gateway = bridges.find_map(|bridge| bridge.gateway).map_or(Gateway::None, Gateway::At);
    let added = request.names.hosts(gateway)?;
    let mut settings = request.names.settings();
    let (egress, names) = (document.get::<Egress>()?, document.get::<Names>()?);
    let resolver = egress.map(|egress| egress.resolver).or(names.map(|names| names.resolver));
    if let Some(resolver) = resolver {
        if !settings.servers.is_empty() {
            let error = anyhow!("--dns has no effect: the container uses its own resolver");
            return Err(hint(error, "--dns of egress-allow or name-serve names the server that it asks"));
        }
        settings.servers = vec![resolver];
    }
    let own = (name.as_str(), request.settings.domainname.as_deref());
    let files = files::of_own(own, &addresses, &entries, added, dns, &settings);
    Ok(Network { network, hostname: name, files })
}

/// Returns another container's network with its host name and files, as with Docker.
fn shared(request: &Request, context: &Context, id: &Id) -> Result<Network> {
    if request.names.are_given() {
        bail!("--add-host and --dns would change the names of others: leave out --network");
    }
    let other = sharing::running(&context.scope, id)?;
    let network = match other.document.get::<Member>()? {
        Some(member) => spec::Network::Shared(member.namespace),
        None => spec::Network::Container(other.identity()),
    };
    let other = other.operation;
    let mounted = |name: &&'static str| {
        let target = Path::new("/etc").join(name);
        let mount = other.spec.mounts().iter().flatten().find(|mount| *mount.destination() == target)?;
        Some(File { name, content: Content::Shared(mount.source().clone()?) })
    };
    Ok(Network {
        network,
        hostname: request.hostname.clone().or(other.spec.hostname().clone()).unwrap_or_else(host_name),
        files: files::NAMES.iter().filter_map(mounted).collect(),
    })
}

pub(crate) fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim_end().to_owned()
}
