//! Runs what docs/cookbook has.
#![allow(clippy::unwrap_used)]

#[path = "../tools/egress-allow/tests/common/mod.rs"]
mod egress;

use serde_json::{Value, json};
use testkit::{NameServer, Sandbox, busybox, repository};

/// A host on which Python finds the package of the cookbook.
fn host(sandbox: Sandbox) -> (Sandbox, String) {
    let cookbook = repository().join("docs/cookbook");
    let environment = format!(
        "export PYTHONPATH={0}/python PYTHONDONTWRITEBYTECODE=1; python3 -W error {0}",
        cookbook.display()
    );
    (sandbox, environment)
}

/// Twenty jobs. Some fail, one takes too long.
fn jobs() -> Value {
    let job = |n: u32| {
        let script = match n {
            3 => "echo wrong >&2; exit 7".to_owned(),
            5 => "echo begun; sleep 1000".to_owned(),
            // Each file system and each process list is a job's own.
            _ => format!(
                "ls /out 2> /dev/null; mkdir -p /out/sub; echo {n} > /out/sub/n; sleep 0.2; test $(ls -d /proc/[0-9]* | wc -l) -lt 8 && echo alone"
            ),
        };
        json!({"name": format!("job{n}"), "image": "busybox", "script": script, "timeout": 3, "pids": 20,
            "artefacts": if n == 3 || n == 5 { Value::Null } else { json!("/out") }})
    };
    Value::Array((1..=20).map(job).collect())
}

#[test]
fn twenty_jobs_four_at_once() {
    let (sandbox, run) = host(Sandbox::with_busybox());
    let before = sandbox.snapshot();
    std::fs::write(sandbox.directory().join("jobs.json"), jobs().to_string()).unwrap();
    let ran = sandbox.sh(&format!("{run}/ci/runner.py jobs.json --artefacts out")).exits(1);
    let has = |line: &str| ran.stdout.lines().any(|own| own == line);
    for line in [
        "job1 | alone",
        "job3 | wrong",
        "job3 | -- ended with status 7",
        "job5 | begun",
        "job5 | -- timed out",
    ] {
        assert!(has(line), "{line}\n{}{}", ran.stdout, ran.stderr);
    }
    assert_eq!(ran.stdout.matches("-- ended with status 0").count(), 18, "{}", ran.stdout);
    for n in (1..=20).filter(|n| ![3, 5].contains(n)) {
        assert_eq!(sandbox.sh(&format!("cat out/job{n}/sub/n")).ok(), format!("{n}\n"));
    }
    let results = sandbox.sh("cat out/results.json").json();
    let results = results.as_array().unwrap();
    assert_eq!((&results[2]["status"], &results[4]["status"]), (&json!(7), &json!(124)));
    assert!(results.iter().all(|one| one["cpu_time"].as_u64() > Some(0)), "{results:?}");
    let time = |one: &Value, name: &str| one[name].as_f64().unwrap();
    let at_once = |moment: f64| {
        results.iter().filter(|one| time(one, "started") <= moment && moment < time(one, "ended")).count()
    };
    assert_eq!(results.iter().map(|one| at_once(time(one, "started"))).max(), Some(4));
    sandbox.assert_as(&before);
}

#[test]
fn a_killed_runner_leaves_nothing() {
    let (sandbox, run) = host(Sandbox::with_busybox());
    let before = sandbox.snapshot();
    let job =
        |n: u32| json!({"name": format!("job{n}"), "image": "busybox", "script": "echo begun; sleep 1000"});
    std::fs::write(
        sandbox.directory().join("jobs.json"),
        Value::Array((1..=8).map(job).collect()).to_string(),
    )
    .unwrap();
    sandbox.sh("img-inspect busybox | layer-apply --id other > /dev/null; unwind -q other").ok();
    for moment in [
        "until [ \"$(grep -c begun out)\" = 4 ]; do sleep 0.01; done",
        "until container-ls --ids | grep -q .; do :; done",
    ] {
        // In a group of its own, which is killed as a whole, as a terminal or a service manager does.
        let script = format!(
            "> out; setsid sh -c '{run}/ci/runner.py jobs.json' > out & runner=$!; {moment}; kill -9 -- -$runner; wait"
        );
        sandbox.sh(&format!("timeout 30 bash -c '{}'", script.replace('\'', "'\\''"))).exits(0);
        sandbox.sh("timeout 20 sh -c 'while pgrep python3 || container-ls --ids | grep .; do sleep 0.02; done' > /dev/null").ok();
        sandbox.assert_as(&before);
    }
}

#[test]
fn commands_of_an_agent() {
    let (sandbox, run) = host(egress::sandbox());
    sandbox.load("busybox", &busybox());
    let server = NameServer::start(&sandbox, &egress::zone());
    let before = sandbox.snapshot();
    let commands = "printf 'one\\ntwo\\n' > notes\n\
        echo three >> notes; rm -rf /work/../etc/passwd; false\n\
        echo four >> notes; id -u\n\
        sleep 1000\n\
        cat notes; echo q | nc -w 5 git.example 80 | cut -d ' ' -f 1\n\
        nslookup other.example > /dev/null || echo not listed\n";
    std::fs::write(sandbox.directory().join("commands"), commands).unwrap();
    let ran = sandbox
        .sh(&format!("{run}/agent/sandbox.py busybox --allow git.example:80 --timeout 2 < commands"))
        .ok();
    let expected = [
        "$ printf 'one\\ntwo\\n' > notes",
        "+one",
        "+two",
        "$ echo three >> notes; rm -rf /work/../etc/passwd; false",
        "# status 1: undone",
        "65534",
        "+four",
        "# it took too long: undone",
        "one",
        "four",
        "outside",
        "not listed",
    ];
    let mut lines = ran.lines();
    for line in expected {
        assert!(lines.any(|own| own == line), "{line}\n{ran}");
    }
    assert!(!ran.contains("+three"), "{ran}");
    assert_eq!(server.asked(), ["A git.example"]);
    drop(server);
    let none = sandbox
        .sh(&format!("echo 'cat /sys/class/net/*/address' > one; {run}/agent/sandbox.py busybox < one"))
        .ok();
    assert_eq!(none, "$ cat /sys/class/net/*/address\n00:00:00:00:00:00\n");
    egress::assert_as(&sandbox, &before);
}

#[test]
fn errors_are_the_tools_own() {
    let (sandbox, run) = host(Sandbox::with_busybox());
    let python = run.replace("python3 -W error ", "python3 -c \"$(cat script)\" # ");
    std::fs::write(
        sandbox.directory().join("script"),
        "import stave\n\
         try: stave.Container.create('none-such')\n\
         except stave.ToolError as error: print(error, '|', error.status, '|', error.hint)\n\
         box = stave.Container.create('busybox', id='box')\n\
         try: stave.Container.create('busybox', id='box')\n\
         except stave.ToolError as error: print(error.tool, error.message.split(' ')[:2])\n\
         try: box.run(['none-such'])\n\
         except stave.ToolError as error: print(error)\n\
         print(box.run(['sh', '-c', 'echo $A; exit 3'], environment={'A': 'x y'}))\n\
         box.snapshot()\n\
         with box.fork('try') as fork: fork.run(['rm', '/bin/ls']); print(fork.diff('box@1'))\n\
         box.keep()\n",
    )
    .unwrap();
    let told = sandbox.sh(&python).ok();
    let lines: Vec<_> = told.lines().collect();
    assert!(
        lines[0].starts_with("img-inspect: no image \"none-such\" ") && lines[0].contains(" | 1 | "),
        "{told}"
    );
    assert_eq!(lines[1], "layer-apply ['container', '\"box\"']", "{told}");
    assert!(lines[2].starts_with("ns-exec: ") && lines[2].contains("none-such"), "{told}");
    assert_eq!(
        lines[3],
        "CompletedProcess(args=['sh', '-c', 'echo $A; exit 3'], returncode=3, stdout='x y\\n', stderr='')"
    );
    assert!(lines[4].contains("path='/bin/ls'") || lines[4].contains("path='bin/ls'"), "{told}");
    assert_eq!(sandbox.sh("container-ls --ids").ok(), "box\n");
    sandbox.sh("unwind -q box").ok();
}

#[test]
fn three_images_by_make() {
    let sandbox = Sandbox::with_busybox();
    let cookbook = repository().join("docs/cookbook/images");
    sandbox
        .sh(&format!(
            "cp -r {0}/. . && cp {1}/scripts/image.mk .",
            cookbook.display(),
            repository().display()
        ))
        .ok();
    sandbox.sh("make -s -j IMG_FLAGS='-q --network none' 2> told").ok();
    assert_eq!(
        sandbox.sh("make -s -q; img-ls --format '{repository}' | sort | tr '\\n' ' '").ok(),
        "base busybox job web "
    );
    let run = "img-inspect job | layer-apply --id job | union-mount | ns-exec --document job.json; unwind -q job > /dev/null";
    assert_eq!(sandbox.sh(run).ok(), "base\n");
    // Only what has changed.
    let built = sandbox
        .sh("echo 'echo more' >> job/job.sh; make -j IMG_FLAGS='-q --network none' | grep -o -- '-t [a-z]*'")
        .ok();
    assert_eq!(built, "-t job\n");
    assert_eq!(sandbox.sh(run).ok(), "base\nmore\n");
}
