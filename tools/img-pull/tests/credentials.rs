//! Files of logins that cannot be read.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod server;

use std::{fs, io::Write, process::Command};

use server::{Content, image, serve};

#[test]
fn what_cannot_be_read_stops_no_public_image() {
    let mut content = Content::new();
    image(&mut content, "1", &[b"layer".to_vec()]);
    let (host, seen) = serve(content, |request, _, stream| {
        let denied: &[u8] =
            b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        request.contains("/v2/private/") && stream.write_all(denied).is_ok()
    });
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("config.json");
    let pull = |arguments: &[&str], name: &str| {
        let mut command = Command::new(testkit::binaries().join("img-pull"));
        command.arg("--root").arg(home.path().join("root")).args(["-q", "--retries", "0"]).args(arguments);
        for unset in ["REGISTRY_AUTH_FILE", "HOME", "XDG_CONFIG_HOME"] {
            command.env_remove(unset);
        }
        command.env("DOCKER_CONFIG", home.path()).env("XDG_RUNTIME_DIR", home.path());
        let output = command.arg(format!("{host}/{name}")).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let no_colon = format!("{{\"auths\": {{\"{host}\": {{\"auth\": \"dXA=\"}}}}}}");
    for (text, problem) in [
        ("{", "EOF while parsing an object at line 1 column 1"),
        ("{\"auths\": {},}", "trailing comma at line 1 column 14"),
        ("\u{feff}{}", "expected value at line 1 column 1"),
        (no_colon.as_str(), &format!("auths of {host:?}: \"auth\" is not a name and a password")),
    ] {
        fs::write(&file, text).unwrap();
        assert_eq!(pull(&[], "a/b:1"), (0, String::new()), "{text}");
        let told = format!("img-pull: read credentials for {host} from {}: {problem}\n", file.display());
        assert_eq!(pull(&[], "private/b:1"), (1, told), "{text}");
    }
    // What is wrong with the entries of others does not matter, and no password was sent.
    fs::write(&file, "{\"auths\": {\"other\": \"x\"}, \"credHelpers\": {\"other\": 5}}").unwrap();
    assert_eq!(pull(&[], "a/b:1"), (0, String::new()));
    assert!(pull(&[], "private/b:1").1.contains(": 401 Unauthorized\nhint: log in"));
    assert!(!seen.lock().unwrap().join("").to_ascii_lowercase().contains("authorization:"));
    // A file that the user names must be one.
    fs::write(&file, "{").unwrap();
    let named = pull(&["--authfile", file.to_str().unwrap()], "a/b:1");
    assert!(named.0 == 1 && named.1.contains(": EOF while parsing an object"), "{named:?}");
}
