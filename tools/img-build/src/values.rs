//! Parses the values of flags: build arguments, secrets and labels.

use builder::Secret;
use oci::Platform;
use toolkit::prelude::*;

/// Parses `NAME=VALUE`. A name alone takes the value of the environment variable, and is ignored if that is
/// not set, as with Docker.
pub(crate) fn argument(text: &str) -> Option<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => Some((text.to_owned(), std::env::var(text).ok()?)),
    }
}

/// Parses `id=ID` with `src=FILE` or `env=VARIABLE`. Without these, the id names an environment variable if
/// that is set, and otherwise a file.
pub(crate) fn secret(text: &str) -> Result<(String, Secret)> {
    let (mut id, mut file, mut variable, mut kind) = (None, None, None, None);
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("id", value)) => id = Some(value),
            Some(("src" | "source", value)) => file = Some(value),
            Some(("env", value)) => variable = Some(value),
            Some(("type", value @ ("file" | "env"))) => kind = Some(value),
            _ => bail!("secret {text:?}: {field:?} is none of id=ID, src=FILE, env=VARIABLE, type=file|env"),
        }
    }
    let Some(id) = id.filter(|id| !id.is_empty()) else {
        bail!("secret {text:?} has no id: write id=ID,src=FILE")
    };
    if kind == Some("env") {
        variable = variable.or(file.take());
    }
    let secret = match (file, variable) {
        (Some(_), Some(_)) => bail!("secret {text:?} has both src and env"),
        (Some(file), None) => Secret::File(file.into()),
        (None, Some(name)) => Secret::Variable(name.to_owned()),
        (None, None) if kind != Some("file") && std::env::var_os(id).is_some() => {
            Secret::Variable(id.to_owned())
        }
        (None, None) => Secret::File(id.into()),
    };
    Ok((id.to_owned(), secret))
}

pub(crate) fn label(text: &str) -> Result<(String, String)> {
    match text.split_once('=').unwrap_or((text, "")) {
        ("", _) => bail!("label {text:?} has no name: write --label NAME=VALUE"),
        (name, value) => Ok((name.to_owned(), value.to_owned())),
    }
}

/// Parses a platform, or `local` for this machine's, as buildx does.
pub(crate) fn platform(text: &str) -> Result<Platform, String> {
    match text {
        "local" => Ok(Platform::host()),
        text => text.parse().map_err(|error: oci::platform::InvalidPlatform| error.to_string()),
    }
}

/// Parses `NAME=VALUE`, or Docker's `manifest:NAME=VALUE`. A single image has no index to annotate.
pub(crate) fn annotation(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("it is NAME=VALUE")?;
    const OTHERS: [&str; 3] = ["index", "manifest-descriptor", "index-descriptor"];
    let (what, name) = match name.split_once(':') {
        Some(("manifest", name)) => ("", name),
        // `index,manifest:NAME` names several objects, and `manifest[linux/amd64]:NAME` a platform.
        Some((what, name))
            if what.split([',', '[']).any(|what| what == "manifest" || OTHERS.contains(&what)) =>
        {
            (what, name)
        }
        _ => ("", name),
    };
    match (what, name) {
        ("", "") => Err("it is NAME=VALUE".to_owned()),
        ("", name) => Ok((name.to_owned(), value.to_owned())),
        (what, _) => Err(format!("annotations of the {what} are not written: there is a manifest only")),
    }
}
