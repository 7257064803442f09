//! container-ls as a process.

use std::fs;

use assert_cmd::cargo::cargo_bin_cmd;

#[test]
fn lists_records() {
    let run = tempfile::tempdir().unwrap();
    let ls = |arguments: &[&str]| {
        let mut command = cargo_bin_cmd!("container-ls");
        command.arg("--run-dir").arg(run.path()).args(arguments).assert()
    };
    ls(&[]).success().stdout("[]\n").stderr("");
    fs::write(run.path().join("web.json"), r#"{"stave":1,"id":"web"}"#).unwrap();
    ls(&["--format", "{id} {state}"]).success().stdout("web created\n");
    ls(&["--running"]).success().stdout("[]\n");
    ls(&["web", "--table"]).success().stdout(
        "CONTAINER   IMAGE   COMMAND   CREATED   STATUS    IP   PORTS\nweb                                     Created\n",
    );
    let none = format!("no container \"db\" in {}", run.path().canonicalize().unwrap().display());
    ls(&["db"])
        .code(1)
        .stdout(format!("[{{\"id\":\"db\",\"error\":{none:?}}}]\n"))
        .stderr(format!("container-ls: {none}\n"));
    ls(&["db", "web", "--format", "{id}"]).code(1).stdout("web\n").stderr(format!("container-ls: {none}\n"));
    ls(&["--records"]).success().stdout("[{\"stave\":1,\"id\":\"web\"}]\n");
}

/// One record that cannot be read hid all containers, and a FIFO was waited for.
#[test]
fn a_bad_record_hides_no_other() {
    let run = tempfile::tempdir().unwrap();
    let path = |name: &str| run.path().canonicalize().unwrap().join(name);
    fs::write(path("web.json"), r#"{"stave":1,"id":"web"}"#).unwrap();
    fs::write(path("empty.json"), "").unwrap();
    fs::write(path("half.json"), "{").unwrap();
    fs::create_dir(path("directory.json")).unwrap();
    fs::write(path("version.json"), r#"{"stave":9}"#).unwrap();
    fs::write(path("odd.json"), r#"{"stave":1,"id":"odd","process":7}"#).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(path("fifo.json")).status().unwrap().success());
    let mut command = cargo_bin_cmd!("container-ls");
    let listed =
        command.arg("--run-dir").arg(run.path()).args(["--format", "{id}"]).assert().code(1).stdout("web\n");
    let told = String::from_utf8(listed.get_output().stderr.clone()).unwrap();
    let hint = "hint: move it away; `unwind ";
    assert_eq!(
        told.lines().filter(|line| line.starts_with(hint)).count(),
        2,
        "of those that are damaged: {told}"
    );
    let told: Vec<&str> = told.lines().filter(|line| !line.starts_with("hint: ")).collect();
    let line = |name: &str, cause: &str| format!("container-ls: read record {:?}: {cause}", path(name));
    for (told, expected) in told.iter().zip([
        line("directory.json", "it is not a regular file"),
        line("empty.json", "it is empty"),
        line("fifo.json", "it is not a regular file"),
        line("half.json", "it is not a document: "),
        "container-ls: read the record: member `process`".to_owned(),
        line("version.json", "document has version 9"),
    ]) {
        assert!(told.starts_with(&expected), "{told}");
    }
    assert_eq!(told.len(), 6, "{told:?}");
}
