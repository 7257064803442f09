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
    let missing =
        format!("container-ls: no container \"db\" in {}\n", run.path().canonicalize().unwrap().display());
    ls(&["db"]).code(1).stdout("").stderr(missing);
}
