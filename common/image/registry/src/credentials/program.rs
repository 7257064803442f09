//! Credential helpers: programs that the user has configured (the protocol of docker-credential-helpers).

use std::{
    io::{self, Write},
    process::{Command, Stdio},
};

use operation::Cause;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Credentials, Login};
use crate::error::plain;

/// Why a helper that is not installed gives no answer.
const NO_PROGRAM: &str = "there is no such program";

/// Asks `docker-credential-<name>` for the credentials of a server; None if it has none.
///
/// # Errors
/// The reason why the helper gave no answer.
pub(super) fn ask(name: &str, server: &str) -> Result<Option<Credentials>, Cause> {
    match call(name, "get", server.as_bytes())? {
        Said::Absent => Err(NO_PROGRAM.into()),
        Said::NotFound => Ok(None),
        Said::Answer(answer) => Ok(credentials(&answer)?),
    }
}

/// The credentials in a helper's answer. As for Go's decoder, which docker reads it with, the case of the
/// members' names does not matter, and the answer ends where its JSON does.
fn credentials(answer: &[u8]) -> Result<Option<Credentials>, String> {
    let mut answer = serde_json::Deserializer::from_slice(answer);
    let answer = Map::deserialize(&mut answer).map_err(|error| format!("its answer is no login: {error}"))?;
    let text = |name: &str| match answer.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)) {
        None | Some((_, Value::Null)) => Ok(String::new()),
        Some((_, Value::String(text))) => Ok(text.clone()),
        Some(_) => Err(format!("its answer is no login: {name:?} is no string")),
    };
    let (name, secret) = (text("Username")?, text("Secret")?);
    Ok(match name.as_str() {
        "" => None,
        "<token>" => Some(Credentials::IdentityToken(secret)),
        _ => Some(Credentials::Password(name, secret)),
    })
}

/// Gives the login for a server to the helper.
pub(super) fn store(name: &str, server: &str, login: &Login) -> Result<(), Cause> {
    let login = json!({"ServerURL": server, "Username": login.name, "Secret": login.password});
    match call(name, "store", login.to_string().as_bytes())? {
        Said::Absent => Err(NO_PROGRAM.into()),
        Said::NotFound | Said::Answer(_) => Ok(()),
    }
}

/// Tells the helper to forget the login for a server. Returns whether the helper may have had one; a missing
/// helper has none.
pub(super) fn erase(name: &str, server: &str) -> Result<bool, Cause> {
    Ok(matches!(call(name, "erase", server.as_bytes())?, Said::Answer(_)))
}

/// The answer of a helper.
enum Said {
    /// The program does not exist.
    Absent,
    /// The helper has no credentials for the server.
    NotFound,
    Answer(Vec<u8>),
}

fn call(name: &str, verb: &str, input: &[u8]) -> Result<Said, Cause> {
    let valid = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if !name.bytes().all(valid) {
        return Err("this cannot be the name of a program".into());
    }
    let helper = Command::new(format!("docker-credential-{name}"))
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn();
    let mut helper = match helper {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Said::Absent),
        helper => helper?,
    };
    if let Some(mut pipe) = helper.stdin.take() {
        // If the helper has already ended, its status says why.
        let _ = pipe.write_all(input);
    }
    let output = helper.wait_with_output()?;
    if output.status.success() {
        return Ok(Said::Answer(output.stdout));
    }
    let said = plain(&String::from_utf8_lossy(&output.stdout));
    match said.as_str() {
        // Docker recognises this case by the same words.
        "credentials not found in native keychain" => Ok(Said::NotFound),
        "" => Err(output.status.to_string().into()),
        _ => Err(said.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_helpers() {
        let password = Credentials::Password("u".into(), "p".into());
        for (answer, found) in [
            (r#"{"ServerURL":"x","Username":"u","Secret":"p"}"#, Ok(Some(password.clone()))),
            (r#"{"serverurl":"x","username":"u","secret":"p"}"#, Ok(Some(password.clone()))),
            ("{\"Username\":\"u\",\"Secret\":\"p\"}\r\nand more\n", Ok(Some(password))),
            (r#"{"Username":"<token>","Secret":"t"}"#, Ok(Some(Credentials::IdentityToken("t".into())))),
            (r#"{"Username":null}"#, Ok(None)),
            ("{}", Ok(None)),
            (r#"{"Username":1}"#, Err("its answer is no login: \"Username\" is no string")),
            ("", Err("its answer is no login: EOF while parsing a value at line 1 column 0")),
        ] {
            assert_eq!(credentials(answer.as_bytes()), found.map_err(str::to_owned), "{answer}");
        }
    }
}
