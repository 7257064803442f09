//! The instructions of a Dockerfile as values. Variables in them are not expanded yet.

/// A here-document: `RUN <<EOF`, `COPY <<EOF /dest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HereDocument {
    /// The word that ends the here-document. COPY uses it as the name of the file.
    pub name: String,
    /// The lines, including their line ends.
    pub content: String,
    /// Whether variables in the content are expanded. They are not if a part of the word was quoted.
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

/// A command line, in one of the two forms of RUN, CMD, ENTRYPOINT and HEALTHCHECK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// The shell form: text for the shell.
    Shell(String),
    /// The exec form: `["program", "argument"]`.
    Exec(Vec<String>),
}

/// `NAME=value` of ENV or LABEL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
    /// Whether the old form was used, with white space between name and value.
    pub legacy: bool,
}

/// One variable of an ARG, with or without a default.
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
    /// `--exclude`: patterns.
    pub exclude: Vec<String>,
    /// `--checksum` of ADD: the digest that a downloaded file must have.
    pub checksum: Option<String>,
    /// `--keep-git-dir` of ADD, if given.
    pub keep_git_dir: Option<bool>,
    /// `--unpack` of ADD, if given.
    pub unpack: Option<bool>,
}

/// `--network` of a RUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunNetwork {
    /// The network of the whole build.
    Default,
    /// A network with only a loopback interface.
    None,
    /// The host's network.
    Host,
}

/// RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The command.
    pub command: CommandLine,
    /// The here-documents of the command.
    pub documents: Vec<HereDocument>,
    /// `--mount`: the values as written. [`super::mount::parse`] parses them when the variables are known.
    pub mounts: Vec<String>,
    /// `--network`.
    pub network: RunNetwork,
}

/// HEALTHCHECK, in the form of the image configuration. Times are in nanoseconds; 0 means not given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Healthcheck {
    /// `NONE`; or `CMD` and the words; or `CMD-SHELL` and a command line.
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

/// An instruction and its position in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The number of the instruction's first line, from 1.
    pub line: usize,
    /// The instruction's text, with continued lines joined.
    pub text: String,
    /// The instruction's name, as written.
    pub keyword: String,
    /// The comments right before the instruction, without `#`.
    pub comments: Vec<String>,
    /// The instruction.
    pub instruction: Instruction,
}

/// FROM, and everything up to the next FROM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The line number of FROM, from 1.
    pub line: usize,
    /// The text of FROM.
    pub text: String,
    /// The base: an image, an earlier stage, or `scratch`. May contain variables.
    pub base: String,
    /// The word `FROM`, as written.
    pub keyword: String,
    /// The comments right before FROM, without `#`.
    pub comments: Vec<String>,
    /// The word `AS`, as written.
    pub as_keyword: Option<String>,
    /// The name after `AS`, as written.
    pub written_name: Option<String>,
    /// The name after `AS`, in lower case.
    pub name: Option<String>,
    /// `--platform`.
    pub platform: Option<String>,
    /// The instructions of the stage.
    pub statements: Vec<Statement>,
}
