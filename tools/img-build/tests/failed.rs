//! What a failed step leaves with `--keep-failed`: a container to examine.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use testkit::Sandbox;

const TEXT: &str = "FROM busybox\nARG A=given\nENV E=set\nWORKDIR /w\nRUN --mount=type=secret,id=s \
                    --mount=type=cache,target=/cache --mount=target=/ctx --mount=from=busybox,target=/other \
                    echo half > half && cat /run/secrets/s > /cache/c && false\n";

#[test]
fn a_command_runs_in_it_and_unwind_removes_it() {
    let sandbox = Sandbox::with_busybox();
    sandbox.sh("mkdir context && echo data > context/file && echo content > secret").ok();
    std::fs::write(sandbox.directory().join("context/Dockerfile"), TEXT).unwrap();
    let build = |flags: &str| {
        let flags = format!("-q --network none --secret id=s,src=secret {flags}");
        sandbox.sh(&format!("img-build {flags} context > failed.json"))
    };
    build("").exits(1);
    assert_eq!(sandbox.sh("jq -r 'keys[]' failed.json").ok(), "error\n", "nothing is left without the flag");
    let before = sandbox.snapshot();
    for flags in ["--keep-failed", "--keep-failed --jobs 2"] {
        let failed = build(flags).exits(1);
        assert!(
            failed.stderr.contains("the failed step's container lacks the mount \"/other\""),
            "{failed:?}"
        );
        assert_eq!(sandbox.sh("jq -r .error.tool failed.json").ok(), "img-build\n");
        // In a pipe, the document is a failure like any other.
        sandbox.sh("layer-apply < failed.json > /dev/null").exits(3);
        sandbox.sh("ns-exec < failed.json > /dev/null").exits(125);
        let inside = "echo $A $E $PWD; cat half /cache/c /ctx/file; ls /run/secrets/s; touch /ctx/x";
        let shell = sandbox.sh(&format!("ns-exec --from failed.json -- sh -c '{inside}'"));
        assert_eq!(shell.stdout, "given set /w\nhalf\ncontent\ndata\n", "{shell:?}");
        assert_ne!(shell.status, 0, "the context is only to be read");
        sandbox.sh("unwind < failed.json > /dev/null").ok();
        sandbox.assert_as(&before);
    }
    // Files that the build did not see are not in the container.
    std::fs::write(sandbox.directory().join("context/.dockerignore"), "hidden\n").unwrap();
    let failed = build("--keep-failed").exits(1);
    assert!(failed.stderr.contains("container lacks the mount \"/ctx\""), "{failed:?}");
    sandbox.sh("unwind < failed.json > /dev/null").ok();
    // If the document cannot be written, no container is left.
    sandbox.sh("rm context/.dockerignore; img-build -q --network none --secret id=s,src=secret --keep-failed context > /dev/full").exits(1);
    sandbox.assert_as(&before);
    // The container's own command is the one that failed.
    build("--keep-failed").exits(1);
    assert_eq!(sandbox.sh("ns-exec --from failed.json").status, 1);
    sandbox.sh("unwind < failed.json > /dev/null").ok();
    sandbox.assert_as(&before);
}
