//! Stages in parallel.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod common;

use common::Fixture;

#[test]
fn stages_are_built_side_by_side() {
    let fixture = Fixture::new();
    let stage = |name: &str| {
        // Each stage waits for the others.
        let wait = "for s in ${ALONE-a b c}; do n=0; until test -e /s/$s; do n=$((n + 1)); test $n -lt 6000 || exit 9; sleep 0.01; done; done";
        let mount = "--mount=type=cache,id=together,target=/s";
        let run = format!("RUN {mount} touch /s/{name}; {wait}; echo {name} $A > /{name}; echo did {name}");
        format!("FROM busybox AS {name}\nARG A ALONE\n{run}\n")
    };
    let stages: String = ["a", "b", "c"].into_iter().map(stage).collect();
    let text = format!("{stages}FROM busybox\nCOPY --from=a /a /\nCOPY --from=b /b /\nCOPY --from=c /c /\n");
    let built = fixture.build_with(&text, &["--jobs", "3", "--build-arg", "A=x", "--build-arg", "B=y"]).ok();
    for name in ["a", "b", "c"] {
        assert!(built.stderr.contains(&format!("[{name}] did {name}\n")), "{}", built.stderr);
    }
    // The arguments that a stage used are known, and steps have their numbers in the file.
    assert!(
        built.stderr.contains("[Warning] One or more build-args [B] were not consumed"),
        "{}",
        built.stderr
    );
    assert!(built.stderr.contains("[b] Step 6/13 : RUN "), "{}", built.stderr);
    assert!(built.stderr.contains("\nStep 13/13 : COPY"), "{}", built.stderr);
    let layers = fixture.layers(&built, 1);
    assert_eq!(layers[1]["b"], "644 0:0 b x");
    // Built one after the other, the stages give the same image.
    let again = fixture
        .build_with(&text, &["--jobs", "1", "--no-cache", "--build-arg", "A=x", "--build-arg", "ALONE="])
        .ok();
    assert_eq!(again.document["image"]["descriptor"], built.document["image"]["descriptor"]);
}

#[test]
fn a_stage_that_fails_ends_the_others() {
    let fixture = Fixture::new();
    let text = "FROM busybox AS a\nRUN sleep 600\nFROM busybox AS b\nRUN sleep 0.2; exit 7\nFROM scratch\nCOPY --from=a / /\nCOPY --from=b / /\n";
    let built = fixture.build_with(text, &["--jobs", "2"]);
    let file = fixture.path("context/Dockerfile").display().to_string();
    let error = format!(
        "img-build: {file}:4: step 4/7: The command '/bin/sh -c sleep 0.2; exit 7' returned a non-zero code: 7"
    );
    assert_eq!(built.error(), error);
    assert!(built.stderr.contains("   4 | >>> RUN sleep 0.2; exit 7\n"), "{}", built.stderr);
    assert!(!common::runs("sleep 600"), "nothing of the other stage goes on");
    assert_eq!(common::names(&fixture.root().join("build")), Vec::<String>::new());
}

/// Messages of the build and the output of commands come through one pipe.
#[test]
fn output_that_looks_like_an_event_is_output() {
    let fixture = Fixture::new();
    let say = r#"echo '{"event":"over","failed":false}'; echo '{"cache":{"cached":true}}'"#;
    let text = format!(
        "FROM busybox AS a\nRUN {say}\nFROM busybox AS b\nRUN true\nFROM busybox\nCOPY --from=a / /\nCOPY --from=b / /\n"
    );
    let built = fixture.build_with(&text, &["--jobs", "2", "--explain-cache", "--progress", "plain"]).ok();
    let lines: Vec<&str> = built.stderr.lines().collect();
    for line in [r#"[a] {"event":"over","failed":false}"#, r#"[a] {"cache":{"cached":true}}"#] {
        assert!(lines.contains(&line), "{line}: {}", built.stderr);
    }
    let explained = lines.iter().filter(|line| line.starts_with(r#"{"cache":{"#)).count();
    assert!(explained >= 3, "the objects of the build itself: {}", built.stderr);
}
