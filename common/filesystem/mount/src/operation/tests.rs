use std::fs;

use operation::{Operation as _, apply_all, undo_all};

use super::*;

struct Fixture {
    directory: tempfile::TempDir,
    scope: Scope,
}

fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let scope = Scope { root: directory.path().join("root"), run_dir: directory.path().join("run") };
    fs::create_dir_all(directory.path().join("layer/data")).unwrap();
    fs::write(directory.path().join("layer/data/seed"), "seed").unwrap();
    fs::create_dir(directory.path().join("empty")).unwrap();
    fs::create_dir(directory.path().join("shared")).unwrap();
    Fixture { directory, scope }
}

fn operations(fixture: &Fixture) -> Vec<MountOperation> {
    let at = |path: &str| fixture.directory.path().join(path);
    let add = |path: &str, mode| MountOperation::DirectoryAdd { path: at(path), mode, owner: None };
    let rootfs = at("root/containers/web/rootfs");
    vec![
        add("root/containers/web", 0o700),
        add("root/containers/web/upper", 0o755),
        add("root/containers/web/work", 0o700),
        add("root/containers/web/rootfs", 0o700),
        MountOperation::OverlayMount(Overlay::around(
            &at("root/containers/web"),
            "stave:web",
            vec![at("empty"), at("layer")],
        )),
        add("root/containers/web/volume", 0o755),
        MountOperation::TreeCopy {
            within: rootfs.clone(),
            source: "/data".into(),
            target: at("root/containers/web/volume"),
        },
        MountOperation::BindMount {
            source: at("root/containers/web/volume"),
            within: rootfs.clone(),
            target: "/data".into(),
            readonly: true,
            userns: None,
            idmap: false,
        },
        MountOperation::BindMount {
            source: at("shared"),
            within: rootfs,
            target: "/new/dir".into(),
            readonly: false,
            userns: None,
            idmap: false,
        },
        add("run/containers/web", 0o755),
        MountOperation::FileAdd {
            path: at("run/containers/web/hosts"),
            content: "::1 localhost\n".into(),
            mode: 0o644,
        },
    ]
}

#[test]
fn a_container_is_mounted_and_leaves_nothing() {
    crate::apart(|| {
        let fixture = fixture();
        let mut list = operations(&fixture);
        apply_all(&mut list, &fixture.scope).unwrap();
        let rootfs = fixture.scope.root.join("containers/web/rootfs");
        assert_eq!(fs::read_to_string(rootfs.join("data/seed")).unwrap(), "seed");
        assert!(fs::write(rootfs.join("data/new"), "").is_err(), "mounted read-only");
        fs::write(rootfs.join("new/dir/file"), "").unwrap();
        assert!(fixture.directory.path().join("shared/file").exists());
        for operation in &list {
            assert_eq!(operation.check(&fixture.scope).unwrap(), Condition::Present, "{operation:?}");
        }

        let json = serde_json::to_string(&list).unwrap();
        let list: Vec<MountOperation> = serde_json::from_str(&json).unwrap();
        for _ in 0..2 {
            assert!(undo_all(&list, &fixture.scope).is_empty());
            assert!(!fixture.scope.root.join("containers").exists());
            assert!(!fixture.scope.run_dir.join("containers").exists());
        }
        let conditions: Vec<_> =
            list.iter().map(|operation| operation.check(&fixture.scope).unwrap()).collect();
        assert!(
            matches!(conditions[0], Condition::Missing(_)) && matches!(conditions[4], Condition::Missing(_))
        );
        assert!(fixture.directory.path().join("shared/file").exists());
    });
}

#[test]
fn what_fails_takes_the_rest_back_and_what_stood_there_stays() {
    crate::apart(|| {
        let fixture = fixture();
        let mut list = operations(&fixture);
        fs::create_dir_all(fixture.scope.root.join("containers/web/upper")).unwrap();
        let (error, left) = apply_all(&mut list, &fixture.scope).unwrap_err();
        let path = fixture.scope.root.join("containers/web");
        assert_eq!(error.to_string(), format!("create directory {path:?}: File exists"));
        assert!(left.is_empty() && path.join("upper").exists());
    });
}

#[test]
fn undo_stays_in_its_scope_and_leaves_alone_what_others_mounted() {
    crate::apart(|| {
        let fixture = fixture();
        let outside = MountOperation::DirectoryAdd { path: "/etc".into(), mode: 0o755, owner: None };
        assert!(outside.undo(&fixture.scope).unwrap_err().to_string().contains("is outside"));
        let target = fixture.scope.root.join("x");
        fs::create_dir_all(&target).unwrap();
        let theirs = crate::FileSystem::open("tmpfs").unwrap();
        theirs.set("source", "theirs").unwrap();
        let attributes = rustix::mount::MountAttrFlags::empty();
        theirs.mount(attributes).unwrap().attach(crate::resolve::place(&target).unwrap()).unwrap();
        let ours = MountOperation::OverlayMount(Overlay {
            source: "stave:x".into(),
            lower: vec![],
            upper: None,
            work: None,
            boot: None,
            target: target.clone(),
            readonly: true,
            durable: false,
            userxattr: false,
            xino: false,
            owner: None,
            nosuid: false,
            newest: None,
        });
        ours.undo(&fixture.scope).unwrap();
        let found = ours.check(&fixture.scope).unwrap();
        crate::unmount(&target).unwrap();
        assert_eq!(found, Condition::Different(format!("mount {target:?} is tmpfs of \"theirs\"")));
    });
}

#[test]
fn explained_as_a_person_would_type_it() {
    let lines: Vec<String> = [
        MountOperation::DirectoryAdd { path: "/c/web".into(), mode: 0o700, owner: None },
        MountOperation::DirectoryAdd { path: "/c/web/upper".into(), mode: 0o755, owner: Some((7, 8)) },
        MountOperation::FileAdd { path: "/r/hosts".into(), content: "::1 a\n".into(), mode: 0o644 },
        MountOperation::TreeCopy {
            within: "/c/rootfs".into(),
            source: "/data".into(),
            target: "/c/v".into(),
        },
        MountOperation::BindMount {
            source: "/s".into(),
            within: "/c/rootfs".into(),
            target: "/data".into(),
            readonly: true,
            userns: None,
            idmap: false,
        },
        MountOperation::ImageMount { image: "/i".into(), target: "/t".into() },
    ]
    .iter()
    .flat_map(operation::Operation::explain)
    .collect();
    assert_eq!(
        lines,
        [
            "install -d -m 0700 /c/web",
            "install -d -m 0755 -o 7 -g 8 /c/web/upper",
            "printf %s '::1 a\n' | install -m 0644 /dev/stdin /r/hosts",
            "cp --archive --one-file-system /c/rootfs/data/. /c/v",
            "mount --mkdir -o rbind,nodev,ro=recursive /s /c/rootfs/data",
            "mount -t erofs -o ro,nodev /i /t",
        ]
    );
}
