//! The text of a container's `/etc/hosts`, as Docker writes it.

use std::{
    fmt::{Display, Write as _},
    fs,
};

const LOCALHOST: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
                         ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// For a network of its own: the names of its loopback interface, and these addresses with their names.
pub fn of_own<A: Display, N: Display>(entries: impl IntoIterator<Item = (A, N)>) -> String {
    with(LOCALHOST.to_owned(), entries)
}

/// For the host's network: the host's own file, and these addresses with their names.
pub fn of_host<A: Display, N: Display>(entries: impl IntoIterator<Item = (A, N)>) -> String {
    with(fs::read_to_string("/etc/hosts").unwrap_or_else(|_| LOCALHOST.to_owned()), entries)
}

fn with<A: Display, N: Display>(mut hosts: String, entries: impl IntoIterator<Item = (A, N)>) -> String {
    if !hosts.ends_with('\n') {
        hosts.push('\n');
    }
    for (address, names) in entries {
        // Writing to a string cannot fail.
        let _ = writeln!(hosts, "{address}\t{names}");
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_entry_is_a_line_of_its_own() {
        assert_eq!(with("1.2.3.4 a".to_owned(), [("5.6.7.8", "b c")]), "1.2.3.4 a\n5.6.7.8\tb c\n");
        assert_eq!(of_own([("5.6.7.8", "b")]), format!("{LOCALHOST}5.6.7.8\tb\n"));
    }
}
