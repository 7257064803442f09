//! The command line of runc.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Containers from OCI bundles, with runc's command line
#[derive(Parser)]
#[command(name = "oci-runtime", disable_version_flag = true, disable_help_subcommand = true)]
pub(crate) struct OciRuntime {
    /// Keep container states in this directory [default: /run/stave-oci]
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Append warnings and errors to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// The format of log lines
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Also log what is done
    #[arg(long)]
    pub(crate) debug: bool,
    /// Rejected: cgroups are made directly, not by systemd
    #[arg(long)]
    pub(crate) systemd_cgroup: bool,
    /// As --systemd-cgroup in crun; accepts only cgroupfs
    #[arg(long, value_name = "MANAGER", hide = true)]
    pub(crate) cgroup_manager: Option<String>,
    /// Run without a cgroup if the caller may not make one
    #[arg(long, value_name = "true|false|auto", default_value = "auto")]
    pub(crate) rootless: Rootless,
    /// Ignored with a warning: there are no checkpoints
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) criu: Option<PathBuf>,
    /// Print the version
    #[arg(short, long)]
    pub(crate) version: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rootless {
    True,
    False,
    Auto,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Listing {
    Table,
    Json,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Create a container from a bundle; its process waits for start
    Create(Create),
    /// Start a created container
    Start(One),
    /// Create and start a container, and wait for it
    Run(Run),
    /// Run another command in a running container
    Exec(Exec),
    /// Print the state of a container
    State(One),
    /// List the containers
    List {
        /// The output format
        #[arg(short, long, value_name = "FORMAT", default_value = "table")]
        format: Listing,
        /// Print only the ids
        #[arg(short, long)]
        quiet: bool,
    },
    /// Send a signal to a container
    Kill {
        /// Signal all processes of the container
        #[arg(short, long)]
        all: bool,
        /// The id of the container
        #[arg(value_name = "ID")]
        id: String,
        /// The name or number of a signal
        #[arg(value_name = "SIGNAL", default_value = "TERM")]
        signal: String,
    },
    /// Remove a stopped container
    Delete {
        /// Kill the container first if it is running
        #[arg(short, long)]
        force: bool,
        /// The id of the container
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Suspend all processes of a container
    Pause(One),
    /// Resume all processes of a container
    Resume(One),
    /// List the processes of a container
    Ps {
        /// The output format
        #[arg(short, long, value_name = "FORMAT", default_value = "table")]
        format: Listing,
        /// The id of the container
        #[arg(value_name = "ID")]
        id: String,
        /// Options of ps(1), which then makes the table: only the lines of the container are printed
        #[arg(value_name = "PS-OPTION", trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Change the resource limits of a container
    Update(Box<Update>),
    /// Print resource usage and out-of-memory events
    Events {
        /// Print the usage once and exit
        #[arg(long)]
        stats: bool,
        /// The time between two reports, such as 5s or 1m
        #[arg(long, value_name = "TIME", default_value = "5s", value_parser = operation::quantity::duration)]
        interval: std::time::Duration,
        /// The id of the container
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Write a config.json to start from
    Spec {
        /// The directory to write it to
        #[arg(short, long, value_name = "DIR", default_value = ".")]
        bundle: PathBuf,
        /// For a container without root privileges
        #[arg(long)]
        rootless: bool,
    },
    /// Print the supported features as JSON
    Features,
}

#[derive(Args)]
pub(crate) struct One {
    /// The id of the container
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

#[derive(Args)]
pub(crate) struct Create {
    /// The bundle directory
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// Read this file instead of config.json in the bundle
    #[arg(short = 'f', long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Send the terminal to this Unix socket
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// Send a pidfd of the process to this Unix socket
    #[arg(long, value_name = "SOCKET")]
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// Write the pid of the container's process to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Move the root file system to / instead of using pivot_root
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    pub(crate) no_new_keyring: bool,
    /// Pass N more descriptors to the container, from 3 on
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    /// The id of the new container
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

#[derive(Args)]
pub(crate) struct Run {
    /// Run in the background
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Keep the container when its process has ended
    #[arg(long)]
    pub(crate) keep: bool,
    /// Accepted for runc and ignored: there is never a subreaper
    #[arg(long)]
    pub(crate) no_subreaper: bool,
    #[command(flatten)]
    pub(crate) create: Create,
}

#[derive(Args)]
pub(crate) struct Exec {
    /// Send the terminal to this Unix socket
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// Send a pidfd of the process to this Unix socket
    #[arg(long, value_name = "SOCKET")]
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// The working directory of the process
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<PathBuf>,
    /// Set an environment variable, NAME=VALUE; repeatable
    #[arg(short, long, value_name = "VARIABLE")]
    pub(crate) env: Vec<String>,
    /// Allocate a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Run as this user, UID or UID:GID
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Add a supplementary group; repeatable
    #[arg(short = 'g', long, value_name = "GID")]
    pub(crate) additional_gids: Vec<u32>,
    /// Read the process from this JSON file
    #[arg(short, long, value_name = "FILE")]
    pub(crate) process: Option<PathBuf>,
    /// Run in the background
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Write the pid of the process to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Rejected: there are no SELinux labels
    #[arg(long, value_name = "LABEL")]
    pub(crate) process_label: Option<String>,
    /// Set the AppArmor profile of the process
    #[arg(long, value_name = "PROFILE")]
    pub(crate) apparmor: Option<String>,
    /// Programs gain no privileges by being executed (no_new_privs)
    #[arg(long)]
    pub(crate) no_new_privs: bool,
    /// Add a capability; repeatable
    #[arg(short, long, value_name = "CAPABILITY")]
    pub(crate) cap: Vec<String>,
    /// Pass N more descriptors to the process, from 3 on
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    /// Run in a cgroup below the container's, `[CONTROLLER:]PATH`; repeatable
    #[arg(long, value_name = "CGROUP")]
    pub(crate) cgroup: Vec<String>,
    /// Also run in a paused container
    #[arg(long)]
    pub(crate) ignore_paused: bool,
    /// The id of the container
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Args)]
pub(crate) struct Update {
    /// Read the limits from this JSON file; - is standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) resources: Option<PathBuf>,
    /// The relative weight of block I/O, 10 to 1000
    #[arg(long, value_name = "N")]
    pub(crate) blkio_weight: Option<u16>,
    /// The CPU period of the quota
    #[arg(long, value_name = "USEC")]
    pub(crate) cpu_period: Option<u64>,
    /// The CPU time per period
    #[arg(long, value_name = "USEC", allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<i64>,
    /// The CPU time that may be saved for bursts
    #[arg(long, value_name = "USEC")]
    pub(crate) cpu_burst: Option<u64>,
    /// The relative CPU weight
    #[arg(long, value_name = "N")]
    pub(crate) cpu_share: Option<u64>,
    /// The CPU period for real-time processes
    #[arg(long, value_name = "USEC")]
    pub(crate) cpu_rt_period: Option<u64>,
    /// The CPU time of real-time processes per period
    #[arg(long, value_name = "USEC", allow_hyphen_values = true)]
    pub(crate) cpu_rt_runtime: Option<i64>,
    /// The CPUs to run on, such as 0-3,7
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,
    /// The memory nodes to use, such as 0
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_mems: Option<String>,
    /// 1 gives the container the lowest CPU priority
    #[arg(long, value_name = "0|1")]
    pub(crate) cpu_idle: Option<i64>,
    /// The memory limit
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(crate) memory: Option<String>,
    /// The soft memory limit
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(crate) memory_reservation: Option<String>,
    /// The limit of memory and swap together
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,
    /// The largest number of processes
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(crate) pids_limit: Option<i64>,
    /// Rejected: there is no Intel RDT
    #[arg(long, value_name = "SCHEMA", hide = true)]
    pub(crate) l3_cache_schema: Option<String>,
    /// Rejected: there is no Intel RDT
    #[arg(long, value_name = "SCHEMA", hide = true)]
    pub(crate) mem_bw_schema: Option<String>,
    /// The id of the container
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}
