use oci_spec::image::ConfigBuilder;

use super::*;

fn rootfs() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("etc")).unwrap();
    std::fs::write(dir.path().join("etc/passwd"), "www:x:33:33::/var/www:/bin/sh\n").unwrap();
    dir
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

#[test]
fn command_line_as_docker_puts_it_together() {
    let dir = rootfs();
    for (entrypoint, cmd, own, args, expected) in [
        (&["/e"][..], &["c"][..], None, &[][..], &["/e", "c"][..]),
        (&["/e"], &["c"], None, &["a", "b"], &["/e", "a", "b"]),
        (&[], &["c"], None, &["a"], &["a"]),
        (&["/e"], &["c"], Some(&["/o"][..]), &[], &["/o"]),
        (&["/e"], &["c"], Some(&["/o"]), &["a"], &["/o", "a"]),
        (&["/e"], &["c"], Some(&[]), &["a"], &["a"]),
    ] {
        let config =
            ConfigBuilder::default().entrypoint(strings(entrypoint)).cmd(strings(cmd)).build().unwrap();
        let overrides = Overrides {
            rootfs: dir.path().into(),
            entrypoint: own.map(strings),
            args: strings(args),
            ..Overrides::default()
        };
        let spec = from_image(Some(&config), &overrides).unwrap();
        assert_eq!(spec.process().as_ref().unwrap().args().as_ref().unwrap(), &strings(expected));
    }
    let none = Overrides { rootfs: dir.path().into(), ..Overrides::default() };
    let message = from_image(None, &none).unwrap_err().to_string();
    assert_eq!(message, "no command: the image names none; give one after `--`");
}

#[test]
fn environment_user_and_directory() {
    let dir = rootfs();
    let config = ConfigBuilder::default()
        .cmd(strings(&["true"]))
        .env(strings(&["PATH=/bin", "A=image", "B=image"]))
        .user("www")
        .working_dir("/srv")
        .stop_signal("SIGWINCH")
        .build()
        .unwrap();
    let overrides = Overrides {
        rootfs: dir.path().into(),
        hostname: Some("web".into()),
        terminal: true,
        links: strings(&["A=link", "DB_PORT=tcp://x"]),
        env: strings(&["B=asked"]),
        ..Overrides::default()
    };
    let spec = from_image(Some(&config), &overrides).unwrap();
    let process = spec.process().as_ref().unwrap();
    assert_eq!(
        process.env().as_ref().unwrap(),
        &strings(&[
            "PATH=/bin",
            "HOSTNAME=web",
            "TERM=xterm",
            "A=image",
            "DB_PORT=tcp://x",
            "B=asked",
            "HOME=/var/www"
        ])
    );
    assert_eq!((process.user().uid(), process.user().gid()), (33, 33));
    assert_eq!(process.cwd().to_str(), Some("/srv"));
    assert_eq!(spec.annotations().as_ref().unwrap()[STOP_SIGNAL], "SIGWINCH");
    let json = serde_json::to_string(&spec).unwrap();
    let again: Spec = serde_json::from_str(&json).unwrap();
    assert_eq!(again, spec);
}

#[test]
fn what_is_asked_for_stands_over_a_variable_that_the_image_has_twice() {
    let dir = rootfs();
    let config = ConfigBuilder::default()
        .cmd(strings(&["true"]))
        .env(strings(&["A=1", "B=1", "A=2"]))
        .build()
        .unwrap();
    for (env, expected) in [(&[][..], "A=2"), (&["A=3"], "A=3")] {
        let overrides = Overrides { rootfs: dir.path().into(), env: strings(env), ..Overrides::default() };
        assert_eq!(run_with(Some(&config), &overrides).env(), &Some(strings(&[expected, "B=1"])));
        let spec = from_image(Some(&config), &overrides).unwrap();
        let env = spec.process().as_ref().unwrap().env().clone().unwrap();
        assert_eq!(env.iter().filter(|variable| variable.starts_with("A=")).collect::<Vec<_>>(), [expected]);
    }
}

#[test]
fn written_in_one_order() {
    let dir = rootfs();
    let overrides = Overrides { rootfs: dir.path().into(), args: strings(&["true"]), ..Overrides::default() };
    let write = || {
        let spec = from_image(None, &overrides).unwrap();
        let process = order::process(spec.process().as_ref().unwrap()).unwrap();
        (serde_json::to_string(&crate::ProcessOperation::new(spec, None)).unwrap(), process)
    };
    let (text, process) = write();
    let bounding: Vec<_> = process["capabilities"]["bounding"].as_array().unwrap().clone();
    assert_eq!(
        (bounding.len(), &bounding[0], &bounding[13]),
        (14, &"CAP_AUDIT_WRITE".into(), &"CAP_SYS_CHROOT".into())
    );
    for _ in 0..8 {
        assert_eq!(write(), (text.clone(), process.clone()));
    }
    assert!(text.contains(&format!("\"process\":{process}")));
    let operation: crate::ProcessOperation = serde_json::from_str(&text).unwrap();
    assert_eq!(*operation.spec, from_image(None, &overrides).unwrap());
}

#[test]
fn all_that_is_written_is_read_back() {
    use oci_spec::runtime::{BoxBuilder, PosixRlimitBuilder, PosixRlimitType};
    let dir = rootfs();
    let config = ConfigBuilder::default().cmd(strings(&["true"])).stop_signal("SIGINT").build().unwrap();
    let overrides = Overrides {
        rootfs: dir.path().into(),
        readonly: true,
        hostname: Some("web".into()),
        network: Network::None,
        terminal: true,
        no_new_privileges: true,
        privileged: true,
        volumes: vec![Volume { source: "/srv".into(), target: "/data".into(), readonly: true, idmap: false }],
        ..Overrides::default()
    };
    let mut spec = from_image(Some(&config), &overrides).unwrap();
    let mut process = spec.process().clone().unwrap();
    let limit = PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitCore).soft(0_u64).hard(0_u64);
    process
        .set_console_size(Some(BoxBuilder::default().width(80_u64).height(24_u64).build().unwrap()))
        .set_rlimits(Some(vec![limit.build().unwrap()]))
        .set_oom_score_adj(Some(7));
    spec.set_process(Some(process));
    let operation = crate::ProcessOperation::new(spec, None);
    let text = serde_json::to_string(&operation).unwrap();
    assert_eq!(serde_json::from_str::<crate::ProcessOperation>(&text).unwrap(), operation);

    let strange = text.replacen(r#""cwd""#, r#""scheduler":{"policy":"SCHED_OTHER"},"cwd""#, 1);
    let error = serde_json::from_str::<crate::ProcessOperation>(&strange).unwrap_err().to_string();
    assert!(error.contains("unknown field `scheduler`"), "{error}");
}
