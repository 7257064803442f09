//! Calls the tools' `--undo`.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, anyhow, bail};
use document::{
    Document, Id, Instance, Member, SplitOff, kept,
    members::{Failure, Network},
    record::{self, Record},
    table,
};
use operation::{Namespace, Scope, words};
use toolkit::{Common, Stage, UNWINDING, hint, session};

/// How many tools are started in advance while another tool works.
const AHEAD: usize = 2;
/// The directories of the tools, and the arguments for them.
pub(crate) struct Tools {
    beside: PathBuf,
    with: Vec<PathBuf>,
    scope: Scope,
    quiet: bool,
    /// Tools that have written their document and may need some time to end.
    ending: Vec<Child>,
}

/// Consecutive steps of one tool, from the index `from` to `last`.
struct Batch {
    tool: String,
    from: usize,
    last: usize,
}

impl Batch {
    fn len(&self) -> usize {
        self.last + 1 - self.from
    }
}

/// A tool that was started and waits for its document.
struct Waiting {
    program: PathBuf,
    child: Child,
}

/// A tool that has its document and works.
struct Given {
    program: PathBuf,
    child: Child,
    /// The steps that were not given to the tool.
    above: SplitOff,
}

impl Tools {
    /// The tools in the directory of this program, and those in the directories `with`.
    pub(crate) fn new(with: &[PathBuf], common: &Common) -> Result<Self> {
        let own = std::env::current_exe().context("find the directory of unwind")?;
        let beside = own.parent().unwrap_or(Path::new("/")).to_owned();
        Ok(Self {
            beside,
            with: with.to_vec(),
            scope: common.scope()?,
            quiet: common.quiet,
            ending: Vec::new(),
        })
    }

    /// Undoes every step of the document in reverse order, and leaves in it what could not be undone. Returns
    /// errors that were not printed yet. A tool that failed has printed its own error.
    pub(crate) fn undo_all(&mut self, document: &mut Document) -> Result<Vec<anyhow::Error>> {
        let id = document.id()?;
        let lost = match &id {
            Some(id) => self.take_over(id, document)?,
            None => None,
        };
        let instance: Option<Instance> = document.get()?;
        document.remove(Failure::NAME);
        let batches = self.batches(&document.tools()?);
        let mut to_start = batches.iter();
        let mut started: VecDeque<_> = to_start.by_ref().take(AHEAD).map(|batch| self.start(batch)).collect();
        let (mut errors, mut failure) = (Vec::new(), None);
        for batch in &batches {
            let Some(waiting) = started.pop_front() else { break };
            let has_failed = failure.is_some() || !errors.is_empty();
            let given = waiting.and_then(|waiting| waiting.give(document, batch));
            started.extend(to_start.next().map(|batch| self.start(batch)));
            match given.and_then(|given| self.take(document, batch, given, has_failed)) {
                Ok(failed) => failure = failure.or(failed),
                Err(error) => errors.push(error.context(undo_step(&batch.tool))),
            }
        }
        if let Some(failure) = failure {
            document.set(&failure)?;
        }
        if let Some(id) = &id
            && document.tools()?.is_empty()
        {
            self.remove_record(id, instance.as_ref())?;
        }
        Ok(lost.into_iter().chain(errors).collect())
    }

    /// Removes the record of a container that was undone. Usually the tools have done so. On a full disk they
    /// could not write that a step is gone.
    fn remove_record(&self, id: &Id, instance: Option<&Instance>) -> Result<()> {
        let Some(record) = Record::lock_existing(&self.scope.run_dir, id)? else { return Ok(()) };
        match record.read()? {
            Some(recorded) if recorded.get::<Instance>()?.as_ref() == instance => Ok(record.remove()?),
            _ => {
                record.release();
                Ok(())
            }
        }
    }

    /// Replaces the document's steps by those of the container's record, and marks the record as being
    /// unwound, so that no tool of a running pipe adds to it. A record without steps is removed at once. Returns
    /// the error of [`remains`].
    fn take_over(&self, id: &Id, document: &mut Document) -> Result<Option<anyhow::Error>> {
        let Some((record, mut recorded)) = record::settled(&self.scope.run_dir, id)? else {
            return self.without_record(id, document);
        };
        let tools = recorded.tools()?;
        if tools.is_empty() {
            record.remove()?;
            drop_steps_of_others(document)?;
            return Ok(None);
        }
        if !recorded.may_be_of_one_container(document)? {
            return Err(session::of_another(record.path(), id));
        }
        if !one_continues_the_other(&recorded, document)? {
            return Err(session::differs(record.path(), id));
        }
        for namespace in [Namespace::Network, Namespace::Pids] {
            if tools.iter().any(|tool| table::works_in(tool) == Some(namespace)) {
                record::is_of_this(namespace, &self.scope.run_dir, id)?;
            }
        }
        session::refuse_read_only(&self.scope, id, &tools)?;
        recorded.set(&Failure {
            tool: "unwind".to_owned(),
            step: Stage::Undo,
            message: format!("container \"{id}\" is being unwound"),
            causes: Vec::new(),
        })?;
        // If the disk is full, the container is removed anyway.
        let _ = record.write(&recorded);
        if !recorded.has_steps_of(document)? {
            *document = recorded;
        }
        Ok(None)
    }

    /// Handles a container without record. If the machine was not restarted, the second record says what
    /// exists. After a restart, or without a second record, only the container's directory in `$STAVE_ROOT`
    /// is left, and only that may be removed: by `union-mount --undo`, or here for a document without steps.
    /// Returns the error of [`remains`].
    fn without_record(&self, id: &Id, document: &mut Document) -> Result<Option<anyhow::Error>> {
        match self.kept(id, document)? {
            Some(kept) => *document = kept,
            None if self.orphan(document)?.is_some() => {
                let record = Record::lock(&self.scope.run_dir, id)?;
                // The container may have been started again in the meantime.
                if let Some(directory) = self.orphan(document)? {
                    mount::remains::remove(&self.scope, &directory)?;
                }
                record.release();
            }
            None => {
                let lost = remains(id, document)?;
                drop_steps_of_others(document)?;
                return Ok(lost);
            }
        }
        Ok(None)
    }

    /// The second record of the document's container, if it was written since the machine was started.
    fn kept(&self, id: &Id, document: &Document) -> Result<Option<Document>> {
        let Some(kept) = kept::read(&self.scope, id)? else { return Ok(None) };
        if !kept.document.may_be_of_one_container(document)? {
            return Err(session::of_another(&kept.path, id));
        }
        Ok(kept.is_of_this_boot.then_some(kept.document))
    }

    /// The commands that [`Tools::undo_all`] would run. Each reads the output of the previous one.
    pub(crate) fn explain(&self, document: &Document) -> Result<Vec<String>> {
        let tools = match self.recorded(document)? {
            Some(recorded) if one_continues_the_other(&recorded, document)? => recorded.tools()?,
            _ => document.tools()?,
        };
        if let Some(directory) = self.orphan(document)? {
            return Ok(vec![words(["rm", "-rf", &directory.to_string_lossy()])]);
        }
        let line = |batch: &Batch| {
            let program = self.find(&batch.tool).with_context(|| undo_step(&batch.tool))?;
            let arguments = self.arguments(batch);
            let line = std::iter::once(program.as_os_str()).chain(arguments.iter().map(OsStr::new));
            Ok(words(line.map(OsStr::to_string_lossy)))
        };
        self.batches(&tools).iter().map(line).collect()
    }

    /// What is left in `$STAVE_ROOT` of a container from before a restart, if it has no record and the
    /// document lists no steps of it. A document with `instance` means that container only: the second record tells
    /// whether it is this one.
    fn orphan(&self, document: &Document) -> Result<Option<PathBuf>> {
        let Some(id) = document.id()? else { return Ok(None) };
        let instance: Option<Instance> = document.get()?;
        let kept = instance.as_ref().map(|_| kept::read(&self.scope, &id)).transpose()?.flatten();
        let found = kept.map(|kept| kept.document.get::<Instance>()).transpose()?.flatten();
        if instance != found || !document.tools()?.is_empty() || self.recorded(document)?.is_some() {
            return Ok(None);
        }
        let directory = self.scope.container(id.as_str());
        Ok(mount::remains::is_left(&self.scope, &directory)?.then_some(directory))
    }

    /// Whether anything of the document's container exists: a record, or a directory in `$STAVE_ROOT`.
    pub(crate) fn knows(&self, document: &Document) -> Result<bool> {
        Ok(self.recorded(document)?.is_some() || self.orphan(document)?.is_some())
    }

    fn recorded(&self, document: &Document) -> Result<Option<Document>> {
        let Some(id) = document.id()? else { return Ok(None) };
        match record::read(&self.scope.run_dir, &id)? {
            Some(recorded) => Ok(Some(recorded)),
            None => self.kept(&id, document),
        }
    }

    /// The steps of these tools, the newest first. Consecutive steps of the same tool of Stave are one batch:
    /// each call reads and writes the whole document and the whole record, so one call for each step would
    /// take long.
    fn batches(&self, tools: &[String]) -> Vec<Batch> {
        let mut batches: Vec<Batch> = Vec::new();
        for (at, tool) in tools.iter().enumerate().rev() {
            match batches.last_mut() {
                Some(batch) if batch.tool == *tool && self.takes_batches(tool) => batch.from = at,
                _ => batches.push(Batch { tool: tool.clone(), from: at, last: at }),
            }
        }
        batches
    }

    /// Whether the tool is a tool of this version of Stave, which supports `--steps`.
    fn takes_batches(&self, tool: &str) -> bool {
        is_ours(tool) && self.beside.join(tool).is_file()
    }

    /// Takes the document that the tool wrote, without the steps of the batch. Returns the failure that the
    /// tool reported. If another tool failed before (`has_failed`), the tool may leave what must not be
    /// undone before that.
    fn take(
        &mut self,
        document: &mut Document,
        batch: &Batch,
        given: Given,
        has_failed: bool,
    ) -> Result<Option<Failure>> {
        let Given { program, mut child, above } = given;
        let mut written = Vec::new();
        if let Some(mut output) = child.stdout.take() {
            output.read_to_end(&mut written).with_context(|| format!("read what {program:?} writes"))?;
        }
        let Ok(mut after) = Document::parse(&written) else {
            let status = child.wait().with_context(|| format!("wait for {program:?}"))?;
            let message = format!("{program:?} --undo ended with {status} and wrote no document");
            // A tool of Stave has printed its own error.
            return match is_ours(&batch.tool) && status.code().is_some_and(|code| code != 0) {
                true => Ok(Some(Failure {
                    tool: batch.tool.clone(),
                    step: Stage::Undo,
                    message,
                    causes: Vec::new(),
                })),
                false => Err(anyhow!(message)),
            };
        };
        self.ending.push(child);
        let failure = after.get::<Failure>()?;
        after.remove(Failure::NAME);
        let is_left = after.tools()?.len() > batch.from;
        if failure.is_none() && is_left && !(has_failed && is_ours(&batch.tool)) {
            bail!("{program:?} --undo left the step in the document");
        }
        if failure.is_none() && !is_left && !is_ours(&batch.tool) {
            self.forget(document, batch.last)?;
        }
        after.append_steps(above)?;
        *document = after;
        Ok(failure)
    }

    /// Removes a foreign tool's undone step from the record, because such a tool may leave the record to
    /// unwind.
    fn forget(&self, document: &Document, at: usize) -> Result<()> {
        let (Some(id), Some(step)) = (document.id()?, document.steps()?.into_iter().nth(at)) else {
            return Ok(());
        };
        let Some(record) = Record::lock_existing(&self.scope.run_dir, &id)? else { return Ok(()) };
        if let Some(mut recorded) = record.read()?
            && let Some(at) = recorded.position_of(&step)?
        {
            recorded.remove_step(at)?;
            if recorded.tools()?.is_empty() {
                return Ok(record.remove()?);
            }
            record.write(&recorded)?;
        }
        record.release();
        Ok(())
    }

    fn find(&self, tool: &str) -> Result<PathBuf> {
        let plain = !tool.is_empty() && !tool.contains('/') && !tool.starts_with('.');
        let beside = is_ours(tool).then_some(&self.beside);
        let mut places = beside.into_iter().chain(&self.with).map(|directory| directory.join(tool));
        places.find(|path| plain && path.is_file()).ok_or_else(|| {
            hint(
                anyhow!("no such tool next to unwind in {:?}", self.beside),
                "use --with DIR for a directory with third-party tools",
            )
        })
    }

    fn arguments(&self, batch: &Batch) -> Vec<OsString> {
        let Scope { root, run_dir } = &self.scope;
        let mut all: Vec<OsString> = vec!["--undo".into()];
        if batch.len() > 1 {
            all.extend(["--steps".into(), batch.len().to_string().into()]);
        }
        all.extend(["--root".into(), root.into(), "--run-dir".into(), run_dir.into()]);
        all.extend(self.quiet.then(|| "--quiet".into()));
        all
    }

    fn start(&self, batch: &Batch) -> Result<Waiting> {
        let program = self.find(&batch.tool)?;
        let mut command = Command::new(&program);
        command.args(self.arguments(batch)).env(UNWINDING, "1").stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.spawn().with_context(|| format!("run {program:?}"))?;
        Ok(Waiting { program, child })
    }
}

impl Waiting {
    /// Gives the tool the document without the steps above its own. Steps that could not be undone do not
    /// matter to the tool, even if they are its own.
    fn give(self, document: &Document, batch: &Batch) -> Result<Given> {
        let Self { program, mut child } = self;
        let mut given = document.clone();
        let above = given.split_off_steps(batch.last + 1)?;
        let written = child.stdin.take().map_or(Ok(()), |mut input| {
            let written = input.write_all(given.to_line().as_bytes());
            if written.is_err() {
                // The tool is killed before it takes half of the document for the whole. It has done nothing
                // yet.
                let _ = child.kill();
            }
            written
        });
        match written {
            // A tool that ends without reading shows the reason in its output.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                let _ = child.wait();
                Err(error).with_context(|| format!("write to {program:?}"))
            }
            _ => Ok(Given { program, child, above }),
        }
    }
}

/// The error for a container without a record whose network namespace is still there, so that the machine was
/// not restarted since. Only the record, which only root writes, says what belongs to the container.
fn remains(id: &Id, document: &Document) -> Result<Option<anyhow::Error>> {
    let namespace = Path::new("/run/netns").join(id.as_str());
    let tools = document.tools()?;
    if !tools.iter().any(|tool| table::makes(tool, Network::NAME)) || !namespace.exists() {
        return Ok(None);
    }
    let lost = anyhow!(
        "container \"{id}\" has no record, and {namespace:?} is there: what its steps made in the kernel stays"
    );
    Ok(Some(hint(lost, format!("find its record: --run-dir DIR (STAVE_RUN); or `ip netns del {id}`"))))
}

/// Removes steps of foreign tools from the document of a container without record. Such a tool would believe
/// the document, which anybody may have written.
fn drop_steps_of_others(document: &mut Document) -> Result<()> {
    let tools = document.tools()?;
    let of_others = |(at, tool): (usize, &String)| (!is_ours(tool)).then_some(at);
    let others: Vec<usize> = tools.iter().enumerate().filter_map(of_others).collect();
    Ok(document.remove_steps(&others)?)
}

/// The context for errors of a tool.
fn undo_step(tool: &str) -> String {
    format!("undo step \"{tool}\"")
}

/// Whether the tool is one of Stave's, which is looked for beside unwind. A document names tools, and unwind
/// may be in a directory with every other program of the system. So it starts only tools that make members of
/// the contract, unless the caller names a directory.
fn is_ours(tool: &str) -> bool {
    table::tools().any(|ours| ours == tool)
}

/// Whether the record is of the document's container. The document may be older, if it was saved in mid-pipe,
/// or the record may be partly undone. The same `instance` is enough, whatever the steps.
fn one_continues_the_other(recorded: &Document, document: &Document) -> Result<bool> {
    if let Some(same) = recorded.is_of_one_container(document)? {
        return Ok(same);
    }
    let (recorded, given) = (recorded.steps()?, document.steps()?);
    Ok(recorded.starts_with(&given) || given.starts_with(&recorded))
}

impl Drop for Tools {
    fn drop(&mut self) {
        for child in &mut self.ending {
            let _ = child.wait();
        }
    }
}
