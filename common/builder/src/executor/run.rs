//! The steps of RUN: each runs a command in the current image, and its changes become a layer.

use runtime::Isolated;

use super::{
    Builder, Left, Network, mounts,
    mounts::Wanted,
    process::{Bind, Command, HOSTNAME, RunsIn, own_cgroup},
    reasons::Inputs,
    stage::{Made, State},
    stubs::Stubs,
};
use crate::{
    arguments,
    cache::{Entry, Key, Layer, Step},
    copy::clean,
    dockerfile::instruction::{CommandLine, HereDocument, Run, RunNetwork},
    error::Cause,
    network::Own,
    normalize::normalize,
    progress::Form,
};

/// The command of a RUN.
pub(super) struct Script {
    pub(super) words: Vec<String>,
    /// A here-document that is a program of its own: its name and its text.
    pub(super) program: Option<(String, String)>,
}

/// The directory of such programs.
const PROGRAMS: &str = "/dev/pipes";

pub(super) fn script(run: &Run, shell: Vec<String>) -> Script {
    let text = match (&run.command, run.documents.as_slice()) {
        (CommandLine::Exec(words), _) => return Script { words: words.clone(), program: None },
        (CommandLine::Shell(text), []) => text.clone(),
        // There is only a here-document. It is the command line itself, or a program in another language.
        (CommandLine::Shell(text), [document]) if is_only_mark(text) => {
            let content = document.text();
            if content.starts_with("#!") {
                // The name leads to no other directory.
                let name = clean("", &document.name).display().to_string();
                let words = vec![format!("{PROGRAMS}/{name}")];
                return Script { words, program: Some((name, content)) };
            }
            content
        }
        (CommandLine::Shell(text), documents) => with_documents(text, documents),
    };
    Script { words: shell.into_iter().chain([text]).collect(), program: None }
}

fn is_only_mark(text: &str) -> bool {
    crate::dockerfile::announces_document(text)
}

/// The command line and its here-documents, for the shell.
fn with_documents(text: &str, documents: &[HereDocument]) -> String {
    let mut all = text.to_owned();
    for document in documents {
        all.push_str(&format!("\n{}{}", document.content, document.name));
    }
    all
}

impl Builder<'_> {
    /// Runs a RUN.
    pub(super) fn run_step(&self, state: &mut State, at: usize, run: &Run) -> Result<(), Cause> {
        let script = script(run, state.image.config.shell());
        let arguments = state.arguments.environment();
        let network = match run.network {
            RunNetwork::Default => self.options.network,
            RunNetwork::None => Network::None,
            RunNetwork::Host if self.options.host_network => Network::Host,
            // The file, or the base image by ONBUILD, may be somebody else's.
            RunNetwork::Host => return Err(Cause::HostNetwork),
        };
        let wanted = self.mounts(state, at, &run.mounts)?;
        let base = self.base_key(state, &script, &arguments);
        let described = wanted.iter().map(|wanted| self.shown_by(wanted)).collect::<Result<Vec<_>, _>>()?;
        let (shown, files): (Vec<String>, Vec<_>) = described.into_iter().unzip();
        let key = |network, shown: &[String]| {
            let base = base.clone().with(match network {
                Network::Own => "own",
                Network::Host => "host",
                Network::None => "none",
            });
            let texts = wanted.iter().map(Wanted::text);
            texts.zip(shown).fold(base, |key, (text, shown)| key.with(text).with(shown))
        };
        // The files of a context are listed one by one.
        let mode =
            |shown: &String| shown.split_once(' ').map(|(_, mode)| mode.to_owned()).unwrap_or_default();
        let told = shown.iter().zip(&files);
        let told = told.map(|(shown, files)| if files.is_empty() { shown.clone() } else { mode(shown) });
        let inputs = self
            .run_inputs(state, &script, &arguments, network)
            .with_all("mount", wanted.iter().map(Wanted::text).zip(told))
            .with_files(files.concat())
            .naming(wanted.iter().map(|wanted| clean("", wanted.source())));
        let text = history(&script.words, &pairs(&state.arguments.declared(&state.image.config)));
        let before = state.clone();
        let expected = match network {
            Network::Own if !may_have_network() => Network::None,
            network => network,
        };
        let short = key(expected, &shown);
        // The layers of a stage say too much if only a part of it is mounted. The content of the part decides.
        let mut content = vec![None; wanted.len()];
        let mut found = self.cached(&short)?;
        if found.is_none() && self.rehearsal.is_none() && wanted.iter().any(Wanted::is_part) {
            content = wanted.iter().map(|wanted| self.content_of(wanted)).collect::<Result<_, _>>()?;
            found = self.cached(&key(expected, &instead(&content, &shown)))?;
            found.iter().try_for_each(|entry| self.keep(&short, entry))?;
        }
        self.files_after(state, (&short, found), &inputs, text, || {
            // The command may have got less than it should have, such as no network.
            let (layer, network, shown) =
                self.execute(&before, &script, &arguments, network, &wanted, shown.clone())?;
            if content.iter().any(Option::is_some) {
                let entry = Entry { created: before.moment.text(), layer: Some(layer.clone()) };
                self.keep(&key(network, &instead(&content, &shown)), &entry)?;
            }
            Ok(Made { layer: Some(layer), key: Some(key(network, &shown)) })
        })
    }

    /// A key of everything that a RUN depends on besides its network and its mounts.
    fn base_key(&self, state: &State, script: &Script, arguments: &[(String, String)]) -> Key {
        let (config, surroundings) = (&state.image.config, &self.options.surroundings);
        let key = Key::new(Step::Run)
            .with(state.chain())
            .with_all(&script.words)
            .with(script.program.as_ref().map_or("", |(_, text)| text))
            .with_all(&config.env)
            .with_all(pairs(arguments))
            .with(&config.user)
            .with(&config.working_dir)
            .with_all(surroundings.hosts.iter().map(|entry| format!("{entry:?}")))
            .with_all(surroundings.limits.iter().map(|limit| format!("{limit:?}")))
            .with(surroundings.shared_memory.map(|size| size.to_string()).unwrap_or_default())
            .with(state.moment.key());
        let key = if self.options.normalize { key.with("normalize") } else { key };
        match self.hostname() {
            HOSTNAME => key,
            other => key.with("hostname").with(other),
        }
    }

    /// The dependencies of a RUN by name, without its mounts, for `--explain-cache`.
    fn run_inputs(
        &self,
        state: &State,
        script: &Script,
        arguments: &[(String, String)],
        network: Network,
    ) -> Inputs {
        let (config, surroundings) = (&state.image.config, &self.options.surroundings);
        let pair = |pair: &String| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (name.to_owned(), value.to_owned())
        };
        let inputs = Inputs::default()
            .with("parent", state.chain())
            .with("command", script.words.join(" "))
            .with("program", script.program.as_ref().map_or("", |(_, text)| text))
            .with("user", &config.user)
            .with("directory", &config.working_dir)
            .with("time", state.moment.key())
            .with("hostname", self.hostname())
            .with("flag network", format!("{network:?}"))
            .with("flag add-host", format!("{:?}", surroundings.hosts))
            .with("flag ulimit", format!("{:?}", surroundings.limits))
            .with("flag shm-size", format!("{:?}", surroundings.shared_memory))
            .with_all("environment", config.env.iter().map(pair))
            .with_all("argument", arguments.iter().cloned());
        if self.options.normalize { inputs.with("flag normalize", "true") } else { inputs }
    }

    /// Runs the command. Returns its layer, the network that it had, and the content of its mounts. A context
    /// may have changed since the lookup.
    fn execute(
        &self,
        state: &State,
        script: &Script,
        arguments: &[(String, String)],
        network: Network,
        wanted: &[Wanted],
        mut shown: Vec<String>,
    ) -> Result<(Layer, Network, Vec<String>), Cause> {
        let mounted = self.store.writable(&state.layers)?;
        let rootfs = mounted.rootfs.clone();
        let mut held = mounts::Held::default();
        let mounts::Prepared { binds, environment: secrets } =
            self.prepared(state, script, wanted, &mut shown, &mut held)?;
        let network = self.give_network(network)?;
        let environment = arguments.iter().cloned().chain(self.global.proxies()).chain(secrets);
        let command = Command {
            words: &script.words,
            config: &state.image.config,
            environment: environment.collect(),
            rootfs: &rootfs,
            hostname: self.hostname(),
            network,
            binds,
            surroundings: &self.options.surroundings,
            progress: &self.progress,
            files: self.store.workspace()?.step()?.upper,
        };
        let group = own_cgroup()?;
        let spec = command.spec(group.as_ref())?;
        let root = mounted.open()?;
        let targets: Vec<_> = command.targets(&spec);
        let stubs = Stubs::find(&root, targets.iter().map(std::path::PathBuf::as_path));
        drop(root);
        let status = command.run(&spec)?;
        let Command { binds, network, .. } = command;
        drop((held, group));
        if status != 0 {
            let offline = network.was_too_small();
            let left = self.left(|| self.leave(state, &script.words, &binds, mounted, &stubs));
            return Err(Cause::Failed { command: script.words.join(" "), status, offline, left });
        }
        if self.options.normalize {
            normalize(&mounted.directories.upper, &mounted.rootfs)?;
        }
        Ok((self.store.commit_without(mounted, &stubs, state.moment)?, network.kind(), shown))
    }

    /// Prepares the mounts of a command, and the file of its here-document.
    fn prepared(
        &self,
        state: &State,
        script: &Script,
        wanted: &[Wanted],
        shown: &mut [String],
        held: &mut mounts::Held,
    ) -> Result<mounts::Prepared, Cause> {
        let mut prepared = mounts::Prepared::default();
        let caches = self.cache_directories(wanted, shown, held)?;
        for ((wanted, shown), cache) in wanted.iter().zip(shown).zip(caches) {
            self.prepare(state, wanted, shown, cache, held, &mut prepared)?;
        }
        if let Some((name, text)) = &script.program {
            prepared.binds.push(self.program(name, text)?);
        }
        // A mount below another one comes after it, in whatever order they are written.
        prepared.binds.sort_by(|a, b| a.target.cmp(&b.target));
        Ok(prepared)
    }

    /// The network that a command gets. The build's may not be possible; it has none then.
    fn give_network(&self, wanted: Network) -> Result<RunsIn<'_>, Cause> {
        let own = match wanted {
            Network::Host => return Ok(RunsIn::Host),
            Network::Own => self.own_network(),
            Network::None => None,
        };
        Ok(match own {
            Some(own) => RunsIn::Own(own),
            None => RunsIn::Isolated(Isolated::new()?),
        })
    }

    /// What a failed command left, if it is to be kept.
    fn left(&self, leave: impl FnOnce() -> Result<Left, Cause>) -> Option<Box<Left>> {
        if !self.options.keep_failed {
            return None;
        }
        // The failure of the command itself must be reported, so a failure to keep its files is only a
        // warning.
        let left = leave().inspect_err(|cause| {
            operation::note(&format!("warning: no container of the failed step: {cause}"));
        });
        left.ok().map(Box::new)
    }

    /// The host name that commands see.
    fn hostname(&self) -> &str {
        let given = self.options.arguments.get(arguments::HOSTNAME).filter(|name| !name.is_empty());
        given.map_or(HOSTNAME, String::as_str)
    }

    /// The network of the build. If it cannot be made, prints a warning; RUN has no network then.
    fn own_network(&self) -> Option<&Own> {
        let make = || {
            let is_told = |cause: &dyn std::fmt::Display| {
                if self.progress.form() == Form::Quiet {
                    return;
                }
                operation::note(&format!("warning: RUN has no network: {cause}"));
            };
            if !may_have_network() {
                is_told(&"only root of the machine makes one");
                return None;
            }
            Own::make(&self.options.root, &self.options.run_dir).inspect_err(|cause| is_told(cause)).ok()
        };
        self.network.get_or_init(make).as_ref()
    }

    /// Writes a here-document that is a program to a file, and mounts the file.
    fn program(&self, name: &str, text: &str) -> Result<Bind, Cause> {
        use std::os::unix::fs::PermissionsExt;
        let directory = self.store.workspace()?.step()?.upper;
        let path = directory.join("program");
        std::fs::write(&path, text).map_err(Cause::system("write", &path))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
            .map_err(Cause::system("change mode of", &path))?;
        Ok(Bind {
            target: clean(PROGRAMS, name),
            source: Some(path),
            options: vec!["bind".to_owned(), "ro".to_owned()],
            lasting: None,
        })
    }
}

/// Whether this user may make a network for the build.
fn may_have_network() -> bool {
    rustix::process::geteuid().is_root() && userns::is_first().unwrap_or(false)
}

/// Arguments as `NAME=VALUE`.
fn pairs(arguments: &[(String, String)]) -> Vec<String> {
    arguments.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// What mounts add to a key, with the content of those for which it is known.
fn instead(content: &[Option<String>], shown: &[String]) -> Vec<String> {
    let one = |(content, shown): (&Option<String>, &String)| content.as_ref().unwrap_or(shown).clone();
    content.iter().zip(shown).map(one).collect()
}

/// The text of a RUN for the history, with its arguments.
fn history(words: &[String], arguments: &[String]) -> String {
    let mut text = String::from("RUN ");
    if !arguments.is_empty() {
        text.push_str(&format!("|{} {} ", arguments.len(), arguments.join(" ")));
    }
    text.push_str(&words.join(" "));
    text
}
