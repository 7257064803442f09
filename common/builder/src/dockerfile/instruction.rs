//! The instructions of a Dockerfile as values. Variables in them are not expanded yet.

/// A here-document: `RUN <<EOF`, `COPY <<EOF /dest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HereDocument {
    /// The word that ends it, and the name of the file that COPY makes of it.
    pub name: String,
    /// The lines, with their ends.
    pub content: String,
    /// Whether variables in it are expanded: no part of the word was quoted.
    pub expand: bool,
    /// `<<-`: tabs at the start of lines are removed.
    pub strip_tabs: bool,
}

impl HereDocument {
    /// The content, without leading tabs for `<<-`.
    pub fn text(&self) -> String {
        if !self.strip_tabs {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// A command line in one of the two forms that RUN, CMD, ENTRYPOINT and HEALTHCHECK take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// Text for the shell.
    Shell(String),
    /// `["program", "argument"]`.
    Exec(Vec<String>),
}

/// `NAME=value` of ENV or LABEL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
    /// Whether it was written in the old form, with white space between both.
    pub legacy: bool,
}

/// One ARG: a name, with or without a default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// The name.
    pub name: String,
    /// The default.
    pub default: Option<String>,
}

/// COPY or ADD.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copy {
    /// Paths and patterns.
    pub sources: Vec<String>,
    /// Here-documents, which become files.
    pub documents: Vec<HereDocument>,
    /// The destination.
    pub destination: String,
    /// `--from`: a stage or an image.
    pub from: Option<String>,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`: octal or symbolic.
    pub chmod: Option<String>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`, each a pattern.
    pub exclude: Vec<String>,
    /// `--checksum` of ADD: the digest that a file on a web server must have.
    pub checksum: Option<String>,
    /// `--keep-git-dir` of ADD, if it is given.
    pub keep_git_dir: Option<bool>,
    /// `--unpack` of ADD, if it is given.
    pub unpack: Option<bool>,
}

/// The network of a RUN, by `--network`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunNetwork {
    /// The network of the whole build.
    Default,
    /// Only a loopback interface.
    None,
    /// The host's.
    Host,
}

/// RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The command.
    pub command: CommandLine,
    /// Here-documents in it.
    pub documents: Vec<HereDocument>,
    /// `--mount`, each as written; [`super::mount::parse`] reads it when variables are known.
    pub mounts: Vec<String>,
    /// `--network`.
    pub network: RunNetwork,
}

/// HEALTHCHECK, in the form of the image configuration. Times are nanoseconds, 0 if not given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Healthcheck {
    /// `NONE`, or `CMD` and its words, or `CMD-SHELL` and a command line.
    pub test: Vec<String>,
    /// `--interval`.
    pub interval: i64,
    /// `--timeout`.
    pub timeout: i64,
    /// `--start-period`.
    pub start_period: i64,
    /// `--start-interval`.
    pub start_interval: i64,
    /// `--retries`.
    pub retries: u32,
}

/// An instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// ADD.
    Add(Copy),
    /// ARG.
    Arg(Vec<Argument>),
    /// CMD.
    Cmd(CommandLine),
    /// COPY.
    Copy(Copy),
    /// ENTRYPOINT.
    Entrypoint(CommandLine),
    /// ENV.
    Env(Vec<Pair>),
    /// EXPOSE: words that may contain variables.
    Expose(Vec<String>),
    /// HEALTHCHECK.
    Healthcheck(Healthcheck),
    /// LABEL.
    Label(Vec<Pair>),
    /// MAINTAINER.
    Maintainer(String),
    /// ONBUILD: the instruction's text, followed by its here-documents.
    Onbuild(String),
    /// RUN.
    Run(Run),
    /// SHELL.
    Shell(Vec<String>),
    /// STOPSIGNAL.
    StopSignal(String),
    /// USER.
    User(String),
    /// VOLUME.
    Volume(Vec<String>),
    /// WORKDIR.
    Workdir(String),
}

/// An instruction and its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The number of its first line, from 1.
    pub line: usize,
    /// Its text, continued lines joined.
    pub text: String,
    /// Its name, as written.
    pub keyword: String,
    /// The comments on the lines right before it, without `#`.
    pub comments: Vec<String>,
    /// The instruction.
    pub instruction: Instruction,
}

/// FROM, and everything up to the next FROM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The number of FROM's line, from 1.
    pub line: usize,
    /// FROM's text.
    pub text: String,
    /// The image, an earlier stage, or `scratch`; may contain variables.
    pub base: String,
    /// `FROM`, as written.
    pub keyword: String,
    /// The comments on the lines right before it, without `#`.
    pub comments: Vec<String>,
    /// `AS`, as written.
    pub as_keyword: Option<String>,
    /// `AS name`, as written.
    pub written_name: Option<String>,
    /// `AS name`, in lower case.
    pub name: Option<String>,
    /// `--platform`.
    pub platform: Option<String>,
    /// The instructions.
    pub statements: Vec<Statement>,
}
