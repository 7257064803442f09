//! Credential helpers: programs that the user has configured (docker-credential-helpers' protocol).

use std::{
    io::{self, Write},
    process::{Command, Stdio},
};

use serde::Deserialize;
use serde_json::json;

use super::{Credentials, Login};
use crate::error::plain;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks `docker-credential-<name>` for the credentials of a server; none if it has none.
pub(super) fn ask(name: &str, server: &str) -> Result<Option<Credentials>, String> {
    let answer = match call(name, "get", server.as_bytes())? {
        Said::Absent => return Ok(Some(Credentials::Absent(name.to_owned()))),
        Said::NotFound => return Ok(None),
        Said::Answer(answer) => answer,
    };
    let answer: Answer = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
    Ok(match answer.username.as_str() {
        "" => None,
        "<token>" => Some(Credentials::IdentityToken(answer.secret)),
        _ => Some(Credentials::Password(answer.username, answer.secret)),
    })
}

/// Gives the helper a login for a server.
pub(super) fn store(name: &str, server: &str, login: &Login) -> Result<(), String> {
    let login = json!({"ServerURL": server, "Username": login.name, "Secret": login.password});
    match call(name, "store", login.to_string().as_bytes())? {
        Said::Absent => Err("there is no such program".to_owned()),
        Said::NotFound | Said::Answer(_) => Ok(()),
    }
}

/// Has the helper forget the login for a server. Returns whether it may have had one; a helper that is not there has none.
pub(super) fn erase(name: &str, server: &str) -> Result<bool, String> {
    Ok(matches!(call(name, "erase", server.as_bytes())?, Said::Answer(_)))
}

/// What a helper said.
enum Said {
    /// There is no such program.
    Absent,
    /// It has no credentials for the server.
    NotFound,
    Answer(Vec<u8>),
}

fn call(name: &str, verb: &str, input: &[u8]) -> Result<Said, String> {
    let valid = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if !name.bytes().all(valid) {
        return Err("this cannot be the name of a program".to_owned());
    }
    let helper = Command::new(format!("docker-credential-{name}"))
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn();
    let mut helper = match helper {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Said::Absent),
        helper => helper.map_err(|error| error.to_string())?,
    };
    if let Some(mut pipe) = helper.stdin.take() {
        // If the helper has already ended, its status says why.
        let _ = pipe.write_all(input);
    }
    let output = helper.wait_with_output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(Said::Answer(output.stdout));
    }
    let said = plain(&String::from_utf8_lossy(&output.stdout));
    match said.as_str() {
        // Docker recognises this case by the same words.
        "credentials not found in native keychain" => Ok(Said::NotFound),
        "" => Err(output.status.to_string()),
        _ => Err(said),
    }
}
