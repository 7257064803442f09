//! The run of a filter, with the tool in `examples/leave-note.rs`.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let own = std::env::current_exe().unwrap();
        let mut command = Command::new(own.ancestors().nth(2).unwrap().join("examples/leave-note"));
        command
            .args(arguments)
            .env("STAVE_ROOT", self.0.path().join("root"))
            .env("STAVE_RUN", self.run_dir());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str], input: &str) -> (i32, Value, String) {
        let mut child = self.command(arguments).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        read(child.wait_with_output().unwrap())
    }

    fn run_dir(&self) -> PathBuf {
        self.0.path().canonicalize().unwrap().join("run")
    }

    /// The files below the run directory, without directories.
    fn files(&self) -> Vec<String> {
        fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                match entry.file_type().unwrap().is_dir() {
                    true => walk(&entry.path(), found),
                    false => found.push(entry.path()),
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.run_dir(), &mut found);
        let mut names: Vec<_> = found
            .iter()
            .map(|path| path.strip_prefix(self.run_dir()).unwrap().display().to_string())
            .collect();
        names.sort();
        names
    }
}

fn read(output: Output) -> (i32, Value, String) {
    let document = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code().unwrap(), document, String::from_utf8(output.stderr).unwrap())
}

#[test]
fn what_was_made_is_recorded_and_goes_with_undo() {
    let place = Place::new();
    let (status, document, errors) = place.run(&["a", "b"], r#"{"stave":1,"theirs":1.50,"id":"web"}"#);
    assert_eq!((status, errors.as_str()), (0, ""));
    let note = |name: &str| json!({"op": "note", "path": place.run_dir().join("notes").join(name)});
    let adds = json!({"hosts": {"entries": [], "environment": []}});
    let step = json!({
        "tool": "leave-note", "version": "0.1.0", "state": "done", "operations": [note("a"), note("b")], "adds": adds,
    });
    assert_eq!((&document["steps"], &document["hosts"]), (&json!([step]), &adds["hosts"]));
    assert_eq!(place.files(), ["locks/web.container", "notes/a", "notes/b", "web.json", "web.json.new"]);
    assert_eq!(
        serde_json::from_slice::<Value>(&fs::read(place.run_dir().join("web.json")).unwrap()).unwrap(),
        document
    );

    let (status, after, errors) = place.run(&["--undo"], &document.to_string());
    assert_eq!((status, errors.as_str()), (0, ""));
    assert_eq!(after, json!({"stave": 1, "theirs": 1.5, "id": "web", "steps": []}));
    assert_eq!(place.files(), [""; 0]);
    for again in [&document, &after] {
        let (status, twice, errors) = place.run(&["--undo"], &again.to_string());
        assert_eq!((status, twice, errors.as_str()), (0, after.clone(), ""));
    }
}

#[test]
fn undo_parses_no_older_step() {
    let place = Place::new();
    let (_, first, _) = place.run(&["a"], r#"{"stave":1,"id":"web"}"#);
    let (_, mut document, _) = place.run(&["b"], &first.to_string());
    document["steps"][0]["operations"] = json!(7);
    fs::write(place.run_dir().join("web.json"), document.to_string()).unwrap();
    let (status, after, errors) = place.run(&["--undo"], &document.to_string());
    assert_eq!((status, errors.as_str(), after["steps"].as_array().unwrap().len()), (0, "", 1));
    let recorded: Value =
        serde_json::from_slice(&fs::read(place.run_dir().join("web.json")).unwrap()).unwrap();
    assert_eq!(recorded, after);
    assert_eq!(place.files(), ["locks/web.container", "notes/a", "web.json", "web.json.new"]);
    let (status, _, errors) = place.run(&["--undo"], &after.to_string());
    assert_eq!(status, 1, "{errors}");
    assert!(errors.starts_with("leave-note: member `steps`: invalid type: integer `7`"), "{errors}");
    assert!(place.files().contains(&"notes/a".to_owned()));
}

#[test]
fn half_of_it_is_taken_back_when_the_other_half_fails() {
    let place = Place::new();
    fs::create_dir_all(place.run_dir().join("notes/b")).unwrap();
    let (status, document, errors) = place.run(&["a", "b"], r#"{"stave":1}"#);
    let path = place.run_dir().join("notes/b");
    assert_eq!((status, errors), (1, format!("leave-note: create {path:?}: File exists\n")));
    let error = json!({"tool": "leave-note", "step": "apply", "message": format!("create {path:?}"), "causes": ["File exists"]});
    assert_eq!(document, json!({"stave": 1, "error": error}));
    assert_eq!(place.files(), [""; 0]);

    let (status, passed_on, errors) = place.run(&["c"], &document.to_string());
    assert_eq!((status, passed_on, errors.as_str()), (3, document, ""));
    assert_eq!(place.files(), [""; 0]);
}

#[test]
fn a_closed_pipe_takes_it_back() {
    let place = Place::new();
    let mut child = place.command(&["a", "--id", "web"]).spawn().unwrap();
    drop(child.stdout.take());
    child.stdin.take().unwrap().write_all(br#"{"stave":1}"#).unwrap();
    let (status, _, errors) = read(child.wait_with_output().unwrap());
    assert_eq!(
        (status, errors.as_str()),
        (1, "leave-note: write the document to standard output: Broken pipe\n")
    );
    assert_eq!(place.files(), [""; 0]);
}

#[test]
fn what_cannot_be_read_is_told() {
    let place = Place::new();
    for (input, status, output, error) in [
        ("", 4, Value::Null, "no document on standard input: did the previous command fail?"),
        ("hello", 4, Value::Null, "standard input is not a document: expected value at line 1 column 1"),
        (
            "[1]",
            4,
            Value::Null,
            "standard input is not a document: invalid type: sequence, expected a JSON object at line 1 column 0",
        ),
        (
            r#"{"a":1}"#,
            4,
            Value::Null,
            "standard input is not a document: an object without the member `stave`",
        ),
        (
            r#"{"stave":2,"a":1}"#,
            4,
            json!({"stave": 2, "a": 1}),
            "document has version 2, this tool reads version 1: use tools of one release in a pipe",
        ),
    ] {
        let told = place.run(&["a"], input);
        assert_eq!(told, (status, output, format!("leave-note: {error}\n")), "{input}");
    }
    let (status, document, errors) = place.run(&["a"], r#"{"stave":1,"steps":7}"#);
    assert_eq!(status, 1);
    assert_eq!(
        errors,
        "leave-note: member `steps`: invalid type: integer `7`, expected a sequence at line 1 column 1\n"
    );
    assert_eq!(document["error"]["step"], "record");
    let (status, document, errors) = place.run(&["--bad"], r#"{"stave":1,"theirs":0}"#);
    assert_eq!((status, &document["theirs"]), (2, &json!(0)));
    assert_eq!(
        errors,
        "leave-note: unexpected argument '--bad' found\nhint: `leave-note --help` lists the arguments\n"
    );
    assert_eq!(place.files(), [""; 0]);
}

#[test]
fn a_name_that_is_taken_stays_the_others() {
    let place = Place::new();
    let (_, first, _) = place.run(&["-n", "--id", "web", "a"], "");
    let files = place.files();
    let path = place.run_dir().join("web.json");
    let taken = format!(
        "leave-note: container \"web\" exists: {path:?} is its record\n\
         hint: run `unwind web`, or choose another `--id`\n"
    );
    let (status, _, errors) = place.run(&["-n", "--id", "web", "b"], "");
    assert_eq!((status, errors), (1, taken));
    assert_eq!(place.files(), files);
    // Continuing with an older document would lose what the record lists.
    let (status, both, _) = place.run(&["b"], &first.to_string());
    assert_eq!(status, 0);
    assert_eq!(place.run(&["c"], &first.to_string()).0, 1);
    assert_eq!(
        place.run(&["--id", "db", "c"], &both.to_string()).2,
        "leave-note: the document belongs to container \"web\", not to \"db\"\n"
    );
}

#[test]
fn explain_names_what_would_be_made_and_makes_nothing() {
    let place = Place::new();
    let output = place.command(&["-n", "--explain", "a b", "c"]).output().unwrap();
    let notes = place.run_dir().join("notes").display().to_string();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("touch '{notes}/a b'\ntouch {notes}/c\n"));
    assert!(!place.run_dir().exists());
}

#[test]
fn check_tells_and_repair_makes_again() {
    let place = Place::new();
    let (_, document, _) = place.run(&["-n", "--id", "web", "a", "b"], "");
    assert_eq!(place.run(&["--check"], &document.to_string()), (0, document.clone(), String::new()));
    let gone = place.run_dir().join("notes/a");
    fs::remove_file(&gone).unwrap();
    let (status, _, errors) = place.run(&["--check"], &document.to_string());
    assert_eq!(status, 1);
    assert_eq!(
        errors,
        format!(
            "leave-note: missing: {gone:?}\nleave-note: 1 of the things that the document lists is not as listed\n"
        )
    );
    assert!(!gone.exists());
    assert_eq!(place.run(&["--repair"], &document.to_string()), (0, document, String::new()));
    assert!(gone.exists());
}

#[test]
fn undo_touches_nothing_outside_its_directories() {
    let place = Place::new();
    let outside = place.0.path().join("precious");
    fs::write(&outside, "").unwrap();
    let step = json!({"tool": "leave-note", "version": "0", "state": "done", "operations": [{"op": "note", "path": outside}]});
    let (status, document, _) = place.run(&["--undo"], &json!({"stave": 1, "steps": [step]}).to_string());
    assert_eq!(status, 1);
    assert_eq!(
        document["steps"][0]["operations"].as_array().unwrap().len(),
        1,
        "what was not undone stays listed"
    );
    assert!(outside.exists());
    let step =
        json!({"tool": "leave-note", "version": "0", "state": "done", "operations": [{"op": "rm -rf /"}]});
    assert_eq!(place.run(&["--undo"], &json!({"stave": 1, "steps": [step]}).to_string()).0, 1);
}

#[test]
fn schema_manual_and_completions_come_from_the_definition() {
    let place = Place::new();
    let (status, schema, _) = place.run(&["--schema"], "");
    assert_eq!((status, &schema["properties"]["stave"]), (0, &json!({"const": 1})));
    assert!(schema["properties"]["hosts"].is_object());
    // One list of stages is in the contract and in the schema.
    let stages = schema["$defs"]["Stage"].to_string();
    for stage in document::Stage::ALL {
        assert!(stages.contains(&format!("\"{stage}\"")), "{stage}: {stages}");
    }
    assert!(!stages.contains("\"read\""), "{stages}");
    for (what, sign) in
        [("man", ".TH leave-note"), ("bash", "complete -F"), ("fish", "complete -c leave-note")]
    {
        let output = place.command(&["--generate", what]).output().unwrap();
        assert!(String::from_utf8(output.stdout).unwrap().contains(sign), "{what}");
    }
}
