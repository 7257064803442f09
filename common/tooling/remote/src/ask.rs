//! Asks questions at the terminal, and reads a password from standard input.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use toolkit::prelude::*;

/// The longest password, in bytes. Tokens can be long.
const MAX_PASSWORD: u64 = 64 << 10;

/// All of standard input, without the newline at the end.
///
/// # Errors
/// When it cannot be read, or is too long.
pub fn password_of_stdin() -> Result<String> {
    let mut text = String::new();
    let count = io::stdin().lock().take(MAX_PASSWORD + 1).read_to_string(&mut text);
    let count = count.map_err(|error| anyhow!("read the password from standard input: {error}"))?;
    if count as u64 > MAX_PASSWORD {
        bail!("read the password from standard input: it has more than {} KiB", MAX_PASSWORD >> 10);
    }
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

/// Asks a question whose answer is shown while it is typed. `instead` says what to do without a terminal.
///
/// # Errors
/// When there is no terminal.
pub fn line(question: &str, instead: &str) -> Result<String> {
    ask(&terminal(instead)?, question)
}

/// Asks a question whose answer is not shown while it is typed. `instead` says what to do without a terminal.
///
/// # Errors
/// When there is no terminal, or Ctrl-C was typed.
pub fn secret(question: &str, instead: &str) -> Result<String> {
    let terminal = terminal(instead)?;
    let _hidden = Hidden::new(&terminal)?;
    let asked = (&terminal).write_all(question.as_bytes()).and_then(|()| typed(&terminal));
    // The newline was not shown either.
    let _ = (&terminal).write_all(b"\n");
    match asked.map_err(|error| anyhow!("ask at the terminal: {error}"))? {
        Some(answer) => Ok(answer),
        None => bail!("interrupted"),
    }
}

/// Reads keys until the end of the line. None after Ctrl-C. Backspace, Ctrl-U and Ctrl-D have their usual
/// meaning.
fn typed(mut terminal: &File) -> io::Result<Option<String>> {
    let mut answer = Vec::new();
    let mut key = [0];
    while terminal.read(&mut key)? > 0 && (answer.len() as u64) < MAX_PASSWORD {
        match key[0] {
            b'\r' | b'\n' | 0x04 => break,
            0x03 => return Ok(None),
            0x08 | 0x7f => {
                let text = String::from_utf8_lossy(&answer).into_owned();
                let mut left = text.chars();
                left.next_back();
                answer = left.as_str().as_bytes().to_vec();
            }
            0x15 => answer.clear(),
            key => answer.push(key),
        }
    }
    String::from_utf8(answer).map(Some).map_err(|_| io::Error::other("the password is not UTF-8"))
}

fn terminal(instead: &str) -> Result<File> {
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty");
    terminal.map_err(|error| hint(anyhow!("ask at the terminal: {error}"), instead))
}

fn ask(mut terminal: &File, question: &str) -> Result<String> {
    let mut answer = String::new();
    let asked = terminal
        .write_all(question.as_bytes())
        .and_then(|()| BufReader::new(terminal.take(MAX_PASSWORD)).read_line(&mut answer));
    asked.map_err(|error| anyhow!("ask at the terminal: {error}"))?;
    Ok(answer.trim_end_matches(['\n', '\r']).to_owned())
}

/// A terminal without echo and without signals from keys, until this is dropped. A signal from Ctrl-C would
/// end the program and leave the terminal without echo.
struct Hidden<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Hidden<'a> {
    fn new(terminal: &'a File) -> Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(terminal, OptionalActions::Flush, &hidden)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}
