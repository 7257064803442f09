//! `RUN --mount=type=ssh`: gives the command a socket of an SSH agent. The command can list keys and make
//! signatures, and nothing else. A relay process passes these requests on and ends with the step.

use std::{
    fs,
    io::{self, Read, Write},
    os::{
        fd::AsRawFd,
        unix::{
            fs::FileTypeExt,
            net::{UnixListener, UnixStream},
        },
    },
    panic,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::Pid,
};

use super::{
    Builder,
    mounts::{Held, Prepared, Wanted},
    process::Bind,
};
use crate::{child, copy::clean, error::Cause};

/// The environment variable with the path of the agent's socket.
const VARIABLE: &str = "SSH_AUTH_SOCK";
/// The largest message, in bytes. OpenSSH has the same limit.
const LARGEST: u32 = 256 << 10;

/// The number of connections that a command may have at a time.
const CONNECTIONS: usize = 64;
const PAUSE: Duration = Duration::from_millis(50);

/// Message numbers (draft-ietf-sshm-ssh-agent, "Message numbers").
const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const SIGN_REQUEST: u8 = 13;

/// Parses a value of `--ssh`: `ID` for the caller's own agent, or `ID=SOCKET`. Returns the id and the path of
/// the socket.
///
/// # Errors
/// When the value names no socket.
pub fn agent(text: &str) -> Result<(String, PathBuf), Cause> {
    let (id, path) = text.split_once('=').unwrap_or((text, ""));
    let id = if id.is_empty() { "default" } else { id };
    let wrong = |problem: &str| Cause::Agent(id.to_owned(), problem.to_owned());
    let path = match path {
        "" => std::env::var_os(VARIABLE)
            .map(PathBuf::from)
            .filter(|path| !path.as_os_str().is_empty())
            .ok_or_else(|| wrong("$SSH_AUTH_SOCK is not set; start an agent, or write ID=SOCKET"))?,
        path => PathBuf::from(path),
    };
    let found = fs::metadata(&path).map_err(Cause::system("stat", &path))?;
    match found.file_type().is_socket() {
        true => Ok((id.to_owned(), path)),
        false => Err(wrong("it is no socket; an agent holds keys: ssh-add KEY, and --ssh default")),
    }
}

/// The relay process. It is killed when this value is dropped.
#[derive(Debug)]
pub(super) struct Relay(Pid);

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
        let _ = waitpid(self.0, None);
    }
}

impl Builder<'_> {
    /// Gives a command the agent that a mount asks for.
    pub(super) fn agent(
        &self,
        wanted: &Wanted,
        working_dir: &str,
        held: &mut Held,
        prepared: &mut Prepared,
    ) -> Result<(), Cause> {
        let mount = &wanted.mount;
        if mount.source.is_some() {
            return Err(wanted.wrong("ssh does not support source"));
        }
        let id = mount.id.as_deref().filter(|id| !id.is_empty()).unwrap_or("default");
        let Some(agent) = self.options.agents.get(id) else {
            return match mount.required {
                // Without `required`, the command runs without an agent.
                false => Ok(()),
                true => {
                    Err(wanted
                        .wrong(format!("the SSH agent {id:?} is required, and was not given: --ssh {id}")))
                }
            };
        };
        let directory = self.store.workspace()?.step()?.upper;
        let path = directory.join("agent");
        let listener = listen(&directory, "agent").map_err(Cause::system("create socket", &path))?;
        self.hand_over(wanted, &path, (0, 0), 0o600)?;
        held.agents.push(relay(listener, agent)?);
        let number = held.agents.len() - 1;
        let target = match mount.target.as_str() {
            "" => format!("/run/buildkit/ssh_agent.{number}"),
            target => target.to_owned(),
        };
        let target = clean(working_dir, &target);
        if number == 0 {
            prepared.environment.push((VARIABLE.to_owned(), format!("/{}", target.display())));
        }
        let options = ["bind", mount.access(), "nosuid", "nodev", "noexec"].map(String::from).to_vec();
        prepared.binds.push(Bind { target, source: Some(path), options, lasting: None });
        Ok(())
    }
}

/// Makes a socket in a directory. The address of a socket has at most 108 bytes (unix(7)), and the path of a
/// store may be longer.
fn listen(directory: &Path, name: &str) -> io::Result<UnixListener> {
    let opened = fs::File::open(directory)?;
    UnixListener::bind(format!("/proc/self/fd/{}/{name}", opened.as_raw_fd()))
}

/// Starts the relay process.
fn relay(listener: UnixListener, agent: &Path) -> Result<Relay, Cause> {
    let forked =
        child::fork().map_err(|error| Cause::system("start relay to", agent)(io::Error::from(error)))?;
    if let Some(process) = forked {
        return Ok(Relay(process));
    }
    // A panic must not unwind into the code of the build.
    let _ = panic::catch_unwind(|| serve(&listener, agent));
    // SAFETY: ends the process.
    unsafe { nix::libc::_exit(0) }
}

fn serve(listener: &UnixListener, agent: &Path) {
    let open = Arc::new(AtomicUsize::new(0));
    for client in listener.incoming() {
        // A client beyond the limit is closed at once. After an error, a pause keeps the loop from spinning.
        let Ok(client) = client else {
            thread::sleep(PAUSE);
            continue;
        };
        if open.load(Ordering::Relaxed) >= CONNECTIONS {
            continue;
        }
        open.fetch_add(1, Ordering::Relaxed);
        let (agent, counted) = (agent.to_owned(), Arc::clone(&open));
        let started = thread::Builder::new().spawn(move || {
            // A client or agent that closes the connection only ends this connection.
            let _ = UnixStream::connect(agent).and_then(|agent| pass_on(client, agent));
            counted.fetch_sub(1, Ordering::Relaxed);
        });
        if started.is_err() {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Passes requests on, one after the other. Only requests for keys and signatures are passed on; all others
/// fail.
fn pass_on(mut client: UnixStream, mut agent: UnixStream) -> io::Result<()> {
    loop {
        let request = message(&mut client)?;
        let answer = match request.first() {
            Some(&(REQUEST_IDENTITIES | SIGN_REQUEST)) => {
                send(&mut agent, &request)?;
                message(&mut agent)?
            }
            _ => vec![FAILURE],
        };
        send(&mut client, &answer)?;
    }
}

fn message(from: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > LARGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length as usize];
    from.read_exact(&mut message)?;
    Ok(message)
}

fn send(to: &mut UnixStream, message: &[u8]) -> io::Result<()> {
    to.write_all(&(message.len() as u32).to_be_bytes())?;
    to.write_all(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_may_have_a_long_path() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(200));
        fs::create_dir(&deep).unwrap();
        let listener = listen(&deep, "agent").unwrap();
        std::os::unix::fs::symlink(&deep, dir.path().join("short")).unwrap();
        let client = UnixStream::connect(dir.path().join("short/agent")).unwrap();
        assert!(listener.accept().is_ok());
        drop(client);
    }

    #[test]
    fn only_keys_and_signatures_are_passed_on() {
        let (mut client, here) = UnixStream::pair().unwrap();
        let (there, mut agent) = UnixStream::pair().unwrap();
        let passing = thread::spawn(move || pass_on(here, there));
        // Adding a key (17), removing all keys (19) and extensions (27) are refused.
        for refused in [17, 19, 27] {
            send(&mut client, &[refused, 1]).unwrap();
            assert_eq!(message(&mut client).unwrap(), [FAILURE]);
        }
        send(&mut client, &[REQUEST_IDENTITIES]).unwrap();
        assert_eq!(message(&mut agent).unwrap(), [REQUEST_IDENTITIES]);
        send(&mut agent, &[12, 0, 0, 0, 0]).unwrap();
        assert_eq!(message(&mut client).unwrap(), [12, 0, 0, 0, 0]);
        drop(client);
        assert!(passing.join().unwrap().is_err());
    }
}
