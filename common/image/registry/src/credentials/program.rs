//! Credential helpers: programs that the user has configured (docker-credential-helpers' protocol).

use std::{
    io::{self, Write},
    process::{Command, Stdio},
};

use serde::Deserialize;

use super::Credentials;
use crate::error::plain;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks `docker-credential-<name>` for the credentials of a server; none if it has none.
pub(super) fn ask(name: &str, server: &str) -> Result<Option<Credentials>, String> {
    let valid = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if !name.bytes().all(valid) {
        return Err("this cannot be the name of a program".to_owned());
    }
    let helper = Command::new(format!("docker-credential-{name}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn();
    let mut helper = match helper {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Some(Credentials::Absent(name.to_owned())));
        }
        helper => helper.map_err(|error| error.to_string())?,
    };
    if let Some(mut input) = helper.stdin.take() {
        // If the helper has already ended, its status says why.
        let _ = input.write_all(server.as_bytes());
    }
    let output = helper.wait_with_output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        let said = plain(&String::from_utf8_lossy(&output.stdout));
        return match said.as_str() {
            // Docker recognises this case by the same words.
            "credentials not found in native keychain" => Ok(None),
            "" => Err(output.status.to_string()),
            _ => Err(said),
        };
    }
    let answer: Answer = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    Ok(match answer.username.as_str() {
        "" => None,
        "<token>" => Some(Credentials::IdentityToken(answer.secret)),
        _ => Some(Credentials::Password(answer.username, answer.secret)),
    })
}
