//! Carries out the commands of CNI.

use std::path::{Path, PathBuf};

use cni::{Attachment, Code, Command, Error, Version, result};
use document::{Document, Id, members::Network, record};
use operation::Scope;
use serde_json::{Value, json};

use crate::{Plugin, Request, foreign, tool};

/// The prefix of the ids of attachments, and the name of the member that says which attachment a document is
/// of.
const KIND: &str = "cni";

/// Carries out the request. Returns what to print on standard output.
pub(crate) fn carry_out(plugin: &Plugin, request: &Request) -> Result<Option<Value>, Error> {
    let command = request.environment.command;
    if command == Command::Version {
        let supported = Version::ALL.map(Version::as_str);
        return Ok(Some(
            json!({"cniVersion": request.configuration.version_text(), "supportedVersions": supported}),
        ));
    }
    let version = request.configuration.version()?;
    let network = request.configuration.name()?;
    let needs = match command {
        Command::Check => Version::V040,
        Command::Gc | Command::Status => Version::V110,
        _ => Version::V031,
    };
    if version < needs {
        let message = format!("{command:?} came with version {needs}, the network is of version {version}");
        return Err(Error::new(Code::IncompatibleVersion, message));
    }
    let scope = toolkit::scope(None, None).map_err(failed)?;
    match command {
        Command::Add => add(plugin, request, &scope, version).map(Some),
        Command::Del => {
            let id = id_of(network, &request.environment.attachment()?)?;
            take_back(plugin, &scope, &id).map(|()| None)
        }
        Command::Check => check(plugin, request, &scope).map(|()| None),
        Command::Gc => collect(plugin, request, &scope).map(|()| None),
        Command::Status => status(plugin, request, &scope).map(|()| None),
        Command::Version => Ok(None),
    }
}

/// The id of an attachment's document, derived from the attachment's primary key (SPEC.md, "Parameters").
fn id_of(network: &str, attachment: &Attachment) -> Result<Id, Error> {
    foreign::id(KIND, &[network, &attachment.container, &attachment.interface]).map_err(failed)
}

fn add(plugin: &Plugin, request: &Request, scope: &Scope, version: Version) -> Result<Value, Error> {
    let previous = request.configuration.previous()?;
    let arguments = (plugin.arguments)(request)?;
    let Some(arguments) = arguments else {
        return Ok(previous.cloned().unwrap_or_else(|| json!({"cniVersion": version.as_str()})));
    };
    let attachment = request.environment.attachment()?;
    let network = request.configuration.name()?;
    let id = id_of(network, &attachment)?;
    let standing = record::read(&scope.run_dir, &id).map_err(failed)?;
    let document = match standing {
        Some(document) => {
            hold_namespace(&document, request)?;
            document
        }
        None if plugin.begins => {
            let namespace = request.environment.namespace()?;
            refuse_own(&namespace)?;
            let (container, interface) = (attachment.container, attachment.interface);
            let about = json!({"network": network, "containerID": container, "ifname": interface});
            foreign::document(KIND, &id, &namespace, &about).map_err(failed)?
        }
        None => {
            let message = format!("{} comes after stave-bridge in the list of plugins", plugin.tool);
            return Err(Error::new(Code::InvalidConfiguration, message));
        }
    };
    let document = again(plugin, &arguments, &document)?;
    let own = match (plugin.result)(request, &document) {
        Ok(own) => own,
        Err(error) => {
            // An attachment without a result counts as not made.
            let _ = again(plugin, &["--undo".to_owned()], &document);
            return Err(error);
        }
    };
    let whole = match (previous, own) {
        (Some(previous), Some(own)) => result::joined(previous, &own),
        (Some(previous), None) => previous.clone(),
        (None, own) => own.unwrap_or_else(|| json!({})),
    };
    Ok(result::to_version(&whole, version))
}

/// Refuses this host's own network namespace: the plugin would change the host's links and routes.
fn refuse_own(namespace: &Path) -> Result<(), Error> {
    match netlink::namespace::is_own(namespace) {
        true => {
            let message = format!("CNI_NETNS {namespace:?} is this host's own network namespace");
            Err(Error::new(Code::InvalidEnvironment, message))
        }
        false => Ok(()),
    }
}

/// Refuses to add to what is left of an attachment in another namespace.
fn hold_namespace(document: &Document, request: &Request) -> Result<(), Error> {
    let wanted = request.environment.namespace()?;
    let standing = document.get::<Network>().map_err(failed)?.map(|network| network.namespace);
    match standing {
        Some(standing) if standing != wanted => {
            let message =
                format!("something is left of the container in {}: DEL removes it", standing.display());
            Err(Error::new(Code::Failed, message))
        }
        _ => Ok(()),
    }
}

/// Undoes the tool's steps of an attachment. An attachment without a record needs nothing (SPEC.md: "Plugins
/// should generally complete a DEL action without error even if some resources are missing").
fn take_back(plugin: &Plugin, scope: &Scope, id: &Id) -> Result<(), Error> {
    let Some(document) = record::read(&scope.run_dir, id).map_err(failed)? else { return Ok(()) };
    let Some(arguments) = foreign::undo(plugin.tool, &document).map_err(failed)? else { return Ok(()) };
    let document = take_back_above(plugin, document)?;
    again(plugin, &arguments, &document).map(drop)
}

/// Tools that are plugins behind the first one of a chain: the tool's name and the plugin's name.
const ABOVE: [(&str, &str); 2] = [("egress-allow", "stave-egress"), ("portmap", "stave-portmap")];

/// Undoes what other plugins built on this plugin's work. For DEL the runtime calls them first; for GC it may
/// call in any order.
fn take_back_above(plugin: &Plugin, mut document: Document) -> Result<Document, Error> {
    let others = ABOVE.iter().filter(|(tool, _)| plugin.begins && *tool != plugin.tool);
    for (tool, name) in others {
        if let Some(arguments) = foreign::undo(tool, &document).map_err(failed)? {
            let own = Path::new("/proc/self/exe").read_link().map_err(failed)?;
            let beside: [PathBuf; 2] = [own.with_file_name(tool), own.with_file_name(name)];
            let program = beside.iter().find(|path| path.exists()).unwrap_or(&beside[0]);
            document = tool::run(program, tool, &arguments, &document)?;
        }
    }
    Ok(document)
}

fn check(plugin: &Plugin, request: &Request, scope: &Scope) -> Result<(), Error> {
    let attachment = request.environment.attachment()?;
    let previous = request.configuration.previous()?;
    let previous =
        previous.ok_or_else(|| Error::new(Code::InvalidConfiguration, "\"prevResult\" is missing"))?;
    if (plugin.arguments)(request)?.is_none() {
        return Ok(());
    }
    let id = id_of(request.configuration.name()?, &attachment)?;
    let document = record::read(&scope.run_dir, &id).map_err(failed)?;
    let is_attached =
        |document: &Document| foreign::undo(plugin.tool, document).is_ok_and(|undo| undo.is_some());
    let Some(document) = document.filter(is_attached) else {
        let message = format!("container {:?} has no {:?} here", attachment.container, attachment.interface);
        return Err(Error::new(Code::UnknownContainer, message));
    };
    if let Some(own) = (plugin.result)(request, &document)? {
        let has = |address: &Value| {
            let addresses = previous["ips"].as_array().into_iter().flatten();
            addresses.map(|ip| &ip["address"]).any(|other| other == address)
        };
        let missing = own["ips"].as_array().into_iter().flatten().find(|ip| !has(&ip["address"]));
        if let Some(ip) = missing {
            let message = format!("address {} is not in \"prevResult\"", ip["address"]);
            return Err(Error::new(Code::Failed, message));
        }
    }
    again(plugin, &["--check".to_owned()], &document).map(drop)
}

/// GC: undoes the attachments on record for this network that are not among the runtime's valid ones. Tries
/// all of them.
fn collect(plugin: &Plugin, request: &Request, scope: &Scope) -> Result<(), Error> {
    let valid = request.configuration.valid_attachments()?;
    let network = request.configuration.name()?;
    let mut first = None;
    for id in record::list(&scope.run_dir).map_err(failed)? {
        let document = match record::read(&scope.run_dir, &id) {
            Ok(Some(document)) => document,
            Ok(None) => continue,
            Err(error) => {
                first.get_or_insert(failed(error));
                continue;
            }
        };
        let Some(own) = foreign::about(KIND, &document) else { continue };
        let is_valid = valid.iter().any(|one| {
            own["containerID"] == one.container.as_str() && own["ifname"] == one.interface.as_str()
        });
        if own["network"] == network
            && !is_valid
            && let Err(error) = take_back(plugin, scope, &id)
        {
            first.get_or_insert(error);
        }
    }
    first.map_or(Ok(()), Err)
}

/// STATUS: whether ADD would work, as far as that is known without a container.
fn status(plugin: &Plugin, request: &Request, scope: &Scope) -> Result<(), Error> {
    let unavailable = |problem: String| Error::new(Code::Unavailable, problem);
    (plugin.arguments)(request)?;
    if !rustix::process::geteuid().is_root() {
        return Err(unavailable("it does not run as root".to_owned()));
    }
    // The first ADD makes the directory, with the mode that the tools use.
    let there = scope.run_dir.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    rustix::fs::access(there, rustix::fs::Access::WRITE_OK)
        .map_err(|error| unavailable(format!("write to directory {there:?}: {error}")))
}

/// Starts the tool again, without the runtime's variables.
fn again(plugin: &Plugin, arguments: &[String], document: &Document) -> Result<Document, Error> {
    tool::run(Path::new("/proc/self/exe"), plugin.tool, arguments, document)
}

pub(crate) fn failed(error: impl ToString) -> Error {
    Error::new(Code::Failed, error.to_string())
}
