//! The server of a repository: lists its branches and tags, and sends the objects of a commit.
//!
//! This is version 0 of git's protocol (gitprotocol-pack, gitprotocol-http), which every server supports. A
//! web server without git support ("dumb") only has the repository's files: each object is a file, or is in a
//! pack listed in `objects/info/packs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read, Write},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use gix_hash::{Kind, ObjectId};
use registry::{Client, without_user};

use crate::{
    Address, Authorize, Error,
    address::is_full,
    objects::Objects,
    packet::{self, Band, Packet},
};

/// The maximum size of a list from a server, in bytes.
const LIST: u64 = 64 << 20;
/// The maximum number of packs of a dumb server.
const PACKS: usize = 1000;
/// How long a server of git's own protocol may be silent.
const SILENCE: Duration = Duration::from_secs(60);
const AGENT: &str = concat!("agent=stave/", env!("CARGO_PKG_VERSION"));

/// The repository on a server, with the names and capabilities that the server announced.
pub struct Remote<'a> {
    name: String,
    way: Way<'a>,
    /// Names and their objects. The name of a tag with `^{}` appended stands for the object that the tag
    /// points to.
    names: BTreeMap<String, ObjectId>,
    capabilities: Vec<String>,
    kind: Kind,
    dumb: bool,
}

enum Way<'a> {
    Web(Web<'a>),
    Socket { host: String, path: String },
}

/// A repository on a web server.
#[derive(Clone, Copy)]
pub(crate) struct Web<'a> {
    client: &'a Client,
    base: &'a str,
    authorize: Authorize<'a>,
}

/// One commit of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// The commit's full name.
    pub commit: String,
    /// The full name of the branch or tag, if one was used to find the commit.
    pub reference: Option<String>,
}

impl Web<'_> {
    fn get(&self, path: &str, body: Option<&[u8]>) -> Result<registry::Reply, Error> {
        let address = format!("{}/{path}", self.base.trim_end_matches('/'));
        let mut headers = Vec::new();
        if body.is_some() {
            headers.push(("Content-Type", "application/x-git-upload-pack-request".to_owned()));
            headers.push(("Accept", "application/x-git-upload-pack-result".to_owned()));
        }
        headers.extend((self.authorize)(self.base).map(|value| ("authorization", value)));
        Ok(self.client.ask(&address, &headers, body)?)
    }

    /// Fetches a file; None if it does not exist.
    fn file(&self, path: &str) -> Result<Option<registry::Reply>, Error> {
        match self.get(path, None) {
            Ok(reply) => Ok(Some(reply)),
            Err(Error::Web(error)) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl<'a> Remote<'a> {
    /// Asks the server of a repository for its branches and tags.
    ///
    /// # Errors
    /// [`Error::Ssh`]; when the server does not answer, or breaks git's protocol.
    pub fn open(remote: &'a str, client: &'a Client, authorize: Authorize<'a>) -> Result<Self, Error> {
        let name = without_user(remote);
        let (scheme, rest) = remote.split_once("://").unwrap_or(("ssh", remote));
        let way = match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" => Way::Web(Web { client, base: remote, authorize }),
            "git" => {
                let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                Way::Socket { host: host.to_owned(), path: path.to_owned() }
            }
            _ => return Err(Error::Ssh(name)),
        };
        let mut opened = Self {
            name,
            way,
            names: BTreeMap::new(),
            capabilities: Vec::new(),
            kind: Kind::Sha1,
            dumb: false,
        };
        opened.ask()?;
        Ok(opened)
    }

    fn ask(&mut self) -> Result<(), Error> {
        match &self.way {
            Way::Web(web) => {
                let web = *web;
                let reply = web.get("info/refs?service=git-upload-pack", None)?;
                let smart = reply.media_type.starts_with("application/x-git-upload-pack-advertisement");
                let mut body = reply.take(LIST);
                if smart {
                    // The name of the service, and a flush packet.
                    self.packet(&mut body)?;
                    self.packet(&mut body)?;
                    return self.advertised(&mut body);
                }
                self.dumb = true;
                let mut text = String::new();
                body.read_to_string(&mut text).map_err(|error| self.wrong(error))?;
                self.listed(&text)?;
                self.head_of(web)
            }
            Way::Socket { .. } => {
                let mut socket = self.connect()?.take(LIST);
                self.advertised(&mut socket)
            }
        }
    }

    fn connect(&self) -> Result<TcpStream, Error> {
        let Way::Socket { host, path } = &self.way else { return Err(self.wrong("it has no socket")) };
        let failed = |source| Error::Connect { host: host.clone(), source };
        let with_port = if host.contains(':') { host.clone() } else { format!("{host}:9418") };
        let mut socket = transport::connect_to(&with_port, SILENCE).map_err(failed)?;
        socket
            .set_read_timeout(Some(SILENCE))
            .and_then(|()| socket.set_write_timeout(Some(SILENCE)))
            .map_err(failed)?;
        let mut request = Vec::new();
        packet::write(&mut request, &format!("git-upload-pack {path}\0host={host}\0"));
        socket.write_all(&request).map_err(failed)?;
        Ok(socket)
    }

    fn wrong(&self, problem: impl std::fmt::Display) -> Error {
        Error::Protocol { remote: self.name.clone(), problem: problem.to_string() }
    }

    fn packet(&self, from: &mut dyn Read) -> Result<Packet, Error> {
        match packet::read(from).map_err(|error| self.wrong(error))? {
            Packet::Data(data) if data.starts_with(b"ERR ") => {
                Err(self.wrong(format!("the server says: {}", String::from_utf8_lossy(&data[4..]).trim())))
            }
            packet => Ok(packet),
        }
    }

    /// Reads the names and capabilities that a smart server announces.
    fn advertised(&mut self, from: &mut dyn Read) -> Result<(), Error> {
        let mut first = true;
        while let Packet::Data(line) = self.packet(from)? {
            let line = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
            let (line, capabilities) = line.split_once('\0').unwrap_or((&line, ""));
            if std::mem::take(&mut first) {
                self.capabilities = capabilities.split(' ').map(str::to_owned).collect();
                if self.capability("object-format=sha256").is_some() {
                    self.kind = Kind::Sha256;
                }
            }
            let Some((id, name)) = line.split_once(' ') else { continue };
            // An empty repository has only this line.
            if name != "capabilities^{}" && id != "shallow" {
                self.add(name, id)?;
            }
        }
        Ok(())
    }

    /// Reads `info/refs` of a dumb server.
    fn listed(&mut self, text: &str) -> Result<(), Error> {
        for line in text.lines() {
            let (id, name) =
                line.split_once('\t').ok_or_else(|| self.wrong("it is not a repository of git"))?;
            if id.len() == 64 {
                self.kind = Kind::Sha256;
            }
            self.add(name, id)?;
        }
        Ok(())
    }

    /// Reads HEAD of a dumb server.
    fn head_of(&mut self, web: Web<'_>) -> Result<(), Error> {
        let Some(reply) = web.file("HEAD")? else { return Ok(()) };
        let mut text = String::new();
        reply.take(4096).read_to_string(&mut text).map_err(|error| self.wrong(error))?;
        match text.trim().strip_prefix("ref: ") {
            Some(name) => {
                self.capabilities.push(format!("symref=HEAD:{name}"));
                if let Some(id) = self.names.get(name).copied() {
                    self.names.insert("HEAD".to_owned(), id);
                }
                Ok(())
            }
            None => self.add("HEAD", text.trim()),
        }
    }

    fn add(&mut self, name: &str, id: &str) -> Result<(), Error> {
        let id = self.id(id)?;
        self.names.insert(name.to_owned(), id);
        Ok(())
    }

    fn id(&self, text: &str) -> Result<ObjectId, Error> {
        let id = ObjectId::from_hex(text.as_bytes()).ok().filter(|id| id.kind() == self.kind);
        id.ok_or_else(|| self.wrong(format!("{text:?} is not the name of an object")))
    }

    /// The text after `start` in the server's capabilities, if the server has that capability.
    fn capability(&self, start: &str) -> Option<&str> {
        self.capabilities.iter().find_map(|capability| capability.strip_prefix(start))
    }

    /// The commit that an address refers to.
    ///
    /// # Errors
    /// [`Error::NoReference`] when the branch or tag does not exist, [`Error::Commit`] when it is not at the
    /// expected commit.
    pub fn resolve(&self, address: &Address) -> Result<Revision, Error> {
        let (tag, revision) = match address.reference.as_deref() {
            Some(full) if is_full(full) => (None, Revision { commit: full.to_owned(), reference: None }),
            Some(name) => self.named(name)?,
            None => {
                let branch = self.capability("symref=HEAD:").map(str::to_owned);
                let head = self.names.get("HEAD").ok_or_else(|| self.none("HEAD"))?;
                (None, Revision { commit: head.to_string(), reference: branch })
            }
        };
        if let Some(wanted) = &address.commit {
            let fits = |id: &str| !wanted.is_empty() && id.starts_with(wanted.as_str());
            if !fits(&revision.commit) && !tag.as_deref().is_some_and(fits) {
                let (remote, wanted) = (self.name.clone(), wanted.clone());
                return Err(Error::Commit { remote, wanted, found: revision.commit });
            }
        }
        Ok(revision)
    }

    fn none(&self, reference: &str) -> Error {
        Error::NoReference { remote: self.name.clone(), reference: reference.to_owned() }
    }

    /// The object and the commit of a branch or a tag. A branch takes precedence over a tag.
    fn named(&self, name: &str) -> Result<(Option<String>, Revision), Error> {
        let candidates = [
            format!("refs/heads/{name}"),
            format!("refs/tags/{name}"),
            format!("refs/{name}"),
            name.to_owned(),
        ];
        let found = candidates.into_iter().find_map(|name| Some((self.names.get(&name)?, name)));
        let (id, name) = found.ok_or_else(|| self.none(name))?;
        match self.names.get(&format!("{name}^{{}}")) {
            Some(commit) => {
                Ok((Some(id.to_string()), Revision { commit: commit.to_string(), reference: Some(name) }))
            }
            None => Ok((None, Revision { commit: id.to_string(), reference: Some(name) })),
        }
    }

    /// Fetches the objects of one commit, without its history if the server can leave that out.
    pub(crate) fn fetch(&self, commit: &str, directory: &Path) -> Result<(ObjectId, Objects<'a>), Error> {
        let id = self.id(commit)?;
        if let (true, Way::Web(web)) = (self.dumb, &self.way) {
            let dumb = Dumb { web: *web, packs: None };
            return Ok((id, Objects::create(directory, self.kind, &self.name, Some(dumb))?));
        }
        let mut objects = Objects::create(directory, self.kind, &self.name, None)?;
        match self.receive(&[id], true, &mut objects) {
            Ok(()) => {}
            // A server need not send a commit that no name points to. It may be in the history of a branch or
            // tag.
            Err(error @ (Error::Protocol { .. } | Error::Web(_)))
                if !self.names.values().any(|it| *it == id) =>
            {
                let is_history =
                    |name: &str| name.starts_with("refs/heads/") || name.starts_with("refs/tags/");
                let all = self.names.iter().filter(|(name, _)| is_history(name)).map(|(_, id)| *id);
                let all: BTreeSet<ObjectId> = all.collect();
                let all: Vec<ObjectId> = all.into_iter().collect();
                if all.is_empty() || self.receive(&all, false, &mut objects).is_err() {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
        Ok((id, objects))
    }

    fn receive(&self, wanted: &[ObjectId], alone: bool, objects: &mut Objects<'_>) -> Result<(), Error> {
        let alone = alone && self.capability("shallow").is_some();
        let mut request = Vec::new();
        for (at, id) in wanted.iter().enumerate() {
            let mut line = format!("want {id}");
            if at == 0 {
                for ability in ["ofs-delta", "side-band-64k", "no-progress"] {
                    if self.capability(ability).is_some() {
                        line.push_str(&format!(" {ability}"));
                    }
                }
                line.push_str(&format!(" {AGENT}"));
                if self.kind == Kind::Sha256 {
                    line.push_str(" object-format=sha256");
                }
            }
            packet::write(&mut request, &format!("{line}\n"));
        }
        if alone {
            packet::write(&mut request, "deepen 1\n");
        }
        packet::flush(&mut request);
        packet::write(&mut request, "done\n");
        match &self.way {
            Way::Web(web) => {
                let mut answer = web.get("git-upload-pack", Some(&request))?;
                self.answered(&mut answer, alone, objects)
            }
            Way::Socket { host, .. } => {
                let mut socket = self.connect()?;
                while let Packet::Data(_) = self.packet(&mut socket)? {}
                socket.write_all(&request).map_err(|source| Error::Connect { host: host.clone(), source })?;
                self.answered(&mut socket, alone, objects)
            }
        }
    }

    fn answered(&self, answer: &mut dyn Read, alone: bool, objects: &mut Objects<'_>) -> Result<(), Error> {
        if alone {
            // The commits whose parents are left out.
            while let Packet::Data(_) = self.packet(answer)? {}
        }
        match self.packet(answer)? {
            Packet::Data(line) if line.starts_with(b"NAK") || line.starts_with(b"ACK") => {}
            _ => return Err(self.wrong("an answer without NAK")),
        }
        match self.capability("side-band-64k").is_some() {
            true => objects.take(&mut Band::new(answer)),
            false => objects.take(answer),
        }
    }
}

/// The objects of a dumb server.
pub(crate) struct Dumb<'a> {
    web: Web<'a>,
    /// The packs that have not been fetched. None before the list was read.
    packs: Option<Vec<String>>,
}

impl Dumb<'_> {
    /// Fetches an object, or packs until one has it. Returns whether it was found.
    pub(crate) fn fetch(&mut self, id: &ObjectId, objects: &mut Objects<'_>) -> Result<bool, Error> {
        let hex = id.to_string();
        let (start, rest) = hex.split_at(2);
        if let Some(reply) = self.web.file(&format!("objects/{start}/{rest}"))? {
            let directory = objects.directory.join(start);
            operation::make_directories(&directory, 0o777)
                .map_err(Error::system("create directory", &directory))?;
            let path = directory.join(rest);
            let mut file = fs::File::create(&path).map_err(Error::system("create", &path))?;
            io::copy(&mut reply.take(LIST * 16), &mut file).map_err(Error::system("write", &path))?;
            return Ok(true);
        }
        if self.packs.is_none() {
            self.packs = Some(self.packs()?);
        }
        // The packs' indexes would tell which one has the object, but most repositories have only one pack.
        while let Some(name) = self.packs.as_mut().and_then(Vec::pop) {
            if let Some(mut reply) = self.web.file(&format!("objects/pack/{name}"))? {
                objects.take(&mut reply)?;
            }
            if gix_object::Exists::exists(objects.handle(), id) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn packs(&self) -> Result<Vec<String>, Error> {
        let mut text = String::new();
        if let Some(reply) = self.web.file("objects/info/packs")? {
            let failed = |error: io::Error| Error::Protocol {
                remote: without_user(self.web.base),
                problem: error.to_string(),
            };
            reply.take(LIST).read_to_string(&mut text).map_err(failed)?;
        }
        let name = |line: &str| line.strip_prefix("P ").map(|name| name.trim().to_owned());
        Ok(text.lines().filter_map(name).filter(|name| !name.contains('/')).take(PACKS).collect())
    }
}
