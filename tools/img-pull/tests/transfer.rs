//! Layers are downloaded several at once, each once, continued where the connection broke, and unpacked while
//! they arrive.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod server;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use oci::Digest;
use server::{Content, configuration, gets, image, image_of, ok, partial, pull, range, serve, short};

fn layer(name: &str) -> Vec<u8> {
    testkit::rootfs(|tree| testkit::file(tree, name, 0o644, &vec![name.as_bytes()[0]; 300_000]))
}

/// Waits until the condition holds, for five seconds at most. Returns whether it does.
fn until(condition: impl Fn() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(5);
    while !condition() {
        if Instant::now() > end {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    true
}

#[test]
fn layers_come_side_by_side() {
    let mut content = Content::new();
    let layers: Vec<_> = ["1", "2", "3", "4", "5"].iter().map(|name| layer(name)).collect();
    image(&mut content, "latest", &layers);
    for (flags, at_once) in [(&["-q"][..], 3), (&["-q", "--jobs", "1"], 1), (&["-q", "-j", "5"], 5)] {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (running, highest) = (now.clone(), most.clone());
        let digests: Vec<_> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
        let (host, _) = serve(content.clone(), move |request, _, _| {
            if digests.iter().any(|digest| request.contains(digest)) {
                highest.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // Give the others time to start, and so too many, if that were possible.
                until(|| highest.load(Ordering::SeqCst) >= at_once);
                thread::sleep(Duration::from_millis(50));
                running.fetch_sub(1, Ordering::SeqCst);
            }
            false
        });
        let root = tempfile::tempdir().unwrap();
        assert_eq!(pull(&host, root.path(), flags, "a/b"), (0, String::new()));
        assert_eq!(most.load(Ordering::SeqCst), at_once);
    }
}

#[test]
fn what_is_there_is_not_fetched_again() {
    let mut content = Content::new();
    let (one, two, three) = (layer("1"), layer("2"), layer("3"));
    let first = image(&mut content, "first", &[one.clone(), two.clone()]);
    let second = image(&mut content, "second", &[two.clone(), three.clone()]);
    let (host, seen) = serve(content, |_, _, _| false);
    let root = tempfile::tempdir().unwrap();
    let lines = |name: &str| pull(&host, root.path(), &["-j", "1"], &format!("a/b:{name}"));
    let (digest, short) = (Digest::of(&first), [short(&one), short(&two), short(&three)]);
    assert_eq!(
        lines("first"),
        (
            0,
            format!(
                "first: Pulling from a/b\n{}: Pulling fs layer\n{}: Pulling fs layer\n{}: Pull complete\n{}: Pull complete\n\
                 Digest: {digest}\nStatus: Downloaded newer image for HOST/a/b:first\n",
                short[0], short[1], short[0], short[1]
            )
        )
    );
    let digest = Digest::of(&second);
    assert_eq!(
        lines("second"),
        (
            0,
            format!(
                "second: Pulling from a/b\n{}: Already exists\n{}: Pulling fs layer\n{}: Pull complete\n\
                 Digest: {digest}\nStatus: Downloaded newer image for HOST/a/b:second\n",
                short[1], short[2], short[2]
            )
        )
    );
    let up_to_date = format!(
        "second: Pulling from a/b\nDigest: {digest}\nStatus: Image is up to date for HOST/a/b:second\n"
    );
    assert_eq!(lines("second"), (0, up_to_date));
    for blob in [&one, &two, &three] {
        assert_eq!(gets(&seen, &format!("/v2/a/b/blobs/{}", Digest::of(blob))), 1);
    }
    assert_eq!(
        gets(&seen, "/v2/a/b/manifests/second"),
        1,
        "the second time it was only asked for its digest"
    );
    // For a name with a digest, whose content cannot change, no server is asked.
    let requests = seen.lock().unwrap().len();
    let name = format!("a/b@{digest}");
    assert_eq!(pull(&host, root.path(), &["-q"], &name).0, 0);
    assert_eq!(pull(&host, root.path(), &["-q"], &name), (0, String::new()));
    assert!(seen.lock().unwrap().len() <= requests + 3, "{:?}", &seen.lock().unwrap()[requests..]);
}

#[test]
fn trying_again_takes_longer_each_time() {
    let mut content = Content::new();
    let one = layer("1");
    image(&mut content, "latest", std::slice::from_ref(&one));
    let digest = Digest::of(&one).to_string();
    let (host, _) = serve(content, move |request, count, stream| {
        let busy = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        request.contains(&digest) && count < 3 && stream.write_all(busy).is_ok()
    });
    let root = tempfile::tempdir().unwrap();
    let begin = Instant::now();
    let (status, lines) = pull(&host, root.path(), &[], "a/b");
    assert_eq!(status, 0, "{lines}");
    let again: Vec<_> = lines.lines().filter(|line| line.contains("trying again")).collect();
    let line = |pause: &str| {
        format!(
            "{}: get http://HOST/v2/a/b/blobs/{}: 503 Service Unavailable: trying again in {pause} s",
            short(&one),
            Digest::of(&one)
        )
    };
    assert_eq!(again, [line("0.25"), line("0.5"), line("1")]);
    assert!(begin.elapsed() >= Duration::from_millis(1750));
}

#[test]
fn a_server_without_ranges_starts_over() {
    let mut content = Content::new();
    let one = layer("1");
    image(&mut content, "latest", std::slice::from_ref(&one));
    let (digest, whole) = (Digest::of(&one).to_string(), one.clone());
    let (host, seen) = serve(content, move |request, count, stream| {
        let answer = ok(&whole);
        let half = &answer[..answer.len() / 2];
        request.contains(&digest) && count == 0 && stream.write_all(half).is_ok()
    });
    let root = tempfile::tempdir().unwrap();
    assert_eq!(pull(&host, root.path(), &["-q", "--apply"], "a/b"), (0, String::new()));
    assert_eq!(gets(&seen, &format!("/v2/a/b/blobs/{}", Digest::of(&one))), 2);
    assert!(seen.lock().unwrap().join("").to_ascii_lowercase().contains("range: bytes="));
    assert_eq!(fs::read(unpacked(root.path(), "1").unwrap()).unwrap().len(), 300_000);
}

/// A server that cannot continue: it says so, or it does not say where its answer begins.
#[test]
fn a_server_that_cannot_continue_is_asked_for_the_whole() {
    let one = layer("1");
    let unsatisfiable =
        b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec();
    let mut nowhere = b"HTTP/1.1 206 Partial Content\r\nConnection: close\r\n".to_vec();
    nowhere.extend_from_slice(format!("Content-Length: {}\r\n\r\n", one.len()).as_bytes());
    nowhere.extend_from_slice(&one);
    for answer in [unsatisfiable, nowhere] {
        let mut content = Content::new();
        image(&mut content, "latest", std::slice::from_ref(&one));
        let (digest, whole) = (Digest::of(&one).to_string(), one.clone());
        let (host, seen) = serve(content, move |request, count, stream| {
            if !request.contains(&digest) {
                return false;
            }
            let half = ok(&whole);
            match (count, range(request)) {
                (0, _) => stream.write_all(&half[..half.len() / 2]).is_ok(),
                (_, Some(_)) => stream.write_all(&answer).is_ok(),
                (_, None) => false,
            }
        });
        let root = tempfile::tempdir().unwrap();
        assert_eq!(pull(&host, root.path(), &["-q", "--apply"], "a/b"), (0, String::new()));
        assert_eq!(gets(&seen, &format!("/v2/a/b/blobs/{}", Digest::of(&one))), 3);
    }
}

#[test]
fn a_layer_becomes_an_image_while_it_comes() {
    let mut content = Content::new();
    let layer = testkit::rootfs(|tree| testkit::file(tree, "first", 0o644, b"early"));
    image(&mut content, "latest", std::slice::from_ref(&layer));
    let (host, _) = serve(content, |_, _, _| false);
    let root = tempfile::tempdir().unwrap();
    let flags = ["-q", "--apply", "--format", "erofs"];
    assert_eq!(pull(&host, root.path(), &flags, "a/b"), (0, String::new()));
    let image = root.path().join("layers").join(format!("{}.erofs", Digest::of(&layer).hex()));
    assert!(image.with_added_extension("json").exists() && unpacked(root.path(), "first").is_none());
    assert_eq!(&fs::read(image).unwrap()[1024..1028], 0xe0f5_e1e2_u32.to_le_bytes());
    let (status, error) = pull(&host, root.path(), &["--format", "erofs"], "a/b");
    assert_eq!(status, 2, "{error}");
}

/// The path of a file below `layers`, even in a layer that is still being unpacked.
fn unpacked(root: &Path, name: &str) -> Option<PathBuf> {
    let mut left = vec![root.join("layers")];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => left.push(entry.path()),
                _ if entry.file_name() == name => return Some(entry.path()),
                _ => {}
            }
        }
    }
    None
}

#[test]
fn a_layer_is_unpacked_while_it_comes() {
    let mut content = Content::new();
    let layer = testkit::rootfs(|tree| {
        testkit::file(tree, "first", 0o644, b"early");
        testkit::file(tree, "filling", 0o644, &vec![1; 4 << 20]);
        testkit::file(tree, "last", 0o644, b"late");
    });
    image(&mut content, "latest", std::slice::from_ref(&layer));
    let root = tempfile::tempdir().unwrap();
    let (digest, path) = (Digest::of(&layer).to_string(), root.path().to_owned());
    let seen_early = Arc::new(Mutex::new(None));
    let early = seen_early.clone();
    let (host, _) = serve(content, move |request, _, stream| {
        if !request.contains(&digest) {
            return false;
        }
        let answer = ok(&layer);
        let (before, after) = answer.split_at(answer.len() - 4096);
        stream.write_all(before).unwrap();
        *early.lock().unwrap() = Some(until(|| unpacked(&path, "first").is_some()));
        stream.write_all(after).is_ok()
    });
    assert_eq!(pull(&host, root.path(), &["-q", "--apply"], "a/b"), (0, String::new()));
    assert_eq!(*seen_early.lock().unwrap(), Some(true));
    assert_eq!(fs::read(unpacked(root.path(), "last").unwrap()).unwrap(), b"late");
}

#[test]
fn a_wrong_diff_id_leaves_nothing_unpacked_and_no_name() {
    let mut content = Content::new();
    let layer = layer("1");
    let promised = Digest::of(b"something else");
    image_of(
        &mut content,
        "latest",
        configuration(std::slice::from_ref(&promised)),
        std::slice::from_ref(&layer),
    );
    let (host, _) = serve(content, |_, _, _| false);
    let root = tempfile::tempdir().unwrap();
    let (status, error) = pull(&host, root.path(), &["-q", "--apply"], "a/b");
    let found = Digest::of(&layer);
    assert_eq!(
        (status, error.trim_end()),
        (1, &*format!("img-pull: layer {found}: archive has DiffID {found}, the image says {promised}"))
    );
    assert_eq!(unpacked(root.path(), "1"), None);
    let index = fs::read_to_string(root.path().join("images/index.json")).unwrap();
    assert!(!index.contains("a/b"), "{index}");
}

#[test]
fn bars_on_a_terminal() {
    let mut content = Content::new();
    let one = layer("1");
    image(&mut content, "latest", std::slice::from_ref(&one));
    let (digest, whole) = (Digest::of(&one).to_string(), one.clone());
    let (host, _) = serve(content, move |request, _, stream| {
        if !request.contains(&digest) {
            return false;
        }
        for part in ok(&whole).chunks(60_000) {
            stream.write_all(part).unwrap();
            thread::sleep(Duration::from_millis(120));
        }
        true
    });
    let root = tempfile::tempdir().unwrap();
    let tool = testkit::binaries().join("img-pull");
    let pull = format!("{} --root {} {host}/a/b > /dev/null", tool.display(), root.path().display());
    let output =
        Command::new("script").args(["-qec", &pull, "/dev/null"]).env("TERM", "xterm").output().unwrap();
    assert!(output.status.success());
    let seen = String::from_utf8_lossy(&output.stdout);
    for part in [
        "latest: Pulling from a/b",
        &format!("{}: Downloading [=", short(&one)),
        "KiB",
        &format!("{}: Pull complete", short(&one)),
        "Status: Downloaded newer image for",
    ] {
        assert!(seen.contains(part), "{part} is not in {seen}");
    }
    assert!(seen.contains("\u{1b}["), "the bar moves in its place");
}

#[test]
fn a_mirror_that_says_nothing_is_not_waited_for_long_and_one_that_breaks_off_is_helped_out() {
    let mut content = Content::new();
    let one = layer("1");
    image(&mut content, "latest", std::slice::from_ref(&one));
    let (silent, seen_silent) = serve(content.clone(), |_, _, stream| {
        let _ = stream.flush();
        thread::sleep(Duration::from_secs(120));
        true
    });
    let (digest, whole) = (Digest::of(&one).to_string(), one.clone());
    let (broken, _) = serve(content.clone(), move |request, _, stream| {
        let answer = ok(&whole);
        request.contains(&digest) && stream.write_all(&answer[..100_000]).is_ok()
    });
    let (digest, whole) = (Digest::of(&one).to_string(), one.clone());
    let (host, seen) = serve(content, move |request, _, stream| {
        let Some(from) = range(request).filter(|_| request.contains(&digest)) else { return false };
        stream.write_all(&partial(&whole, from)).is_ok()
    });
    let root = tempfile::tempdir().unwrap();
    let begin = Instant::now();
    let mirrors = ["--timeout", "1", "--retries", "1", "--mirror", &silent, "--mirror", &broken];
    let (status, lines) = pull(&host, root.path(), &mirrors, "a/b");
    assert_eq!(status, 0, "{lines}");
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    assert!(lines.starts_with("mirror skipped: get http"), "{lines}");
    assert!(seen_silent.lock().unwrap().len() <= 2, "{:?}", seen_silent.lock().unwrap());
    // The registry itself sent only the end of the layer.
    let requests = seen.lock().unwrap().join("").to_ascii_lowercase();
    assert!(requests.contains("range: bytes="), "{requests}");
    assert!(!requests.contains("/manifests/"), "{requests}");
}
