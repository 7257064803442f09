//! Wrong usage: what is still looked for among the arguments is where the document comes from, and where it goes.

use std::{
    fs::File,
    io::{self, IsTerminal},
    path::Path,
};

use document::Document;

use crate::{arguments::NsExec, output::Output};

/// Says what is wrong. In mid-pipe the document is read in any case, and passed on to where the caller looks for it: it
/// lists what can be taken back.
pub(crate) fn wrong(error: &clap::Error) {
    let own: Vec<String> = std::env::args().skip(1).take_while(|argument| argument != "--").collect();
    let has = |names: [&str; 2]| own.iter().any(|argument| names.contains(&argument.as_str()));
    if has(["-d", "--detach"]) {
        toolkit::filter::<NsExec>();
        return;
    }
    let document = match value(&own, "--from") {
        Some(path) => File::open(path).ok().and_then(|file| Document::read(file).ok()),
        None if has(["-n", "--null-input"]) || io::stdin().is_terminal() => None,
        None => toolkit::read_document().ok(),
    };
    let error = toolkit::usage_error("ns-exec", error);
    toolkit::print_error("ns-exec", &error);
    let (Some(mut document), Some(path)) = (document, value(&own, "--document")) else { return };
    let failure = toolkit::failure_member("ns-exec", "arguments", &error);
    if (document.has_failed() || document.set(&failure).is_ok())
        && let Ok(mut output) = Output::to(Path::new(path))
    {
        output.pass_on(&document);
    }
}

/// The value of an option, written behind it or with `=`.
fn value<'a>(arguments: &'a [String], option: &str) -> Option<&'a str> {
    arguments.iter().enumerate().find_map(|(at, argument)| match argument.strip_prefix(option) {
        Some("") => arguments.get(at + 1).map(String::as_str),
        Some(rest) => rest.strip_prefix('='),
        None => None,
    })
}

#[cfg(test)]
mod tests {
    use super::value;

    #[test]
    fn values_in_both_spellings() {
        let arguments = ["--document-x", "--from=a=b", "--document", "c", "--from"].map(str::to_owned);
        assert_eq!(value(&arguments, "--from"), Some("a=b"));
        assert_eq!(value(&arguments, "--document"), Some("c"));
        assert_eq!(value(&arguments, "--log"), None);
        assert_eq!(value(&arguments[4..], "--from"), None);
    }
}
