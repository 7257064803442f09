//! Malicious layers.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use archive::{Entry, Kind};
use common::{Store, apply, archive, directory, file, gzip, tar};
use oci::Digest;

#[test]
fn names_that_point_out_or_say_nothing() {
    let long = "x".repeat(65536);
    let shown = "x".repeat(256);
    for (names, message) in [
        (&["../x"][..], r#"entry "../x": name with ".." that leads out of the root"#),
        (&["a/../../x"], r#"entry "a/../../x": name with ".." that leads out of the root"#),
        (&["a/.."], r#"entry "a/..": the root must be a directory"#),
        (
            &["ok", "x => ../../etc/passwd"],
            r#"entry "x": hard link to "../../etc/passwd": name with ".." that leads out of the root"#,
        ),
        (&["x => /etc/passwd"], r#"entry "x": hard link to "etc/passwd", which does not exist"#),
        (&["d/", "x => d"], r#"entry "x": hard link to "d", which is a directory"#),
        (&["x => ."], r#"entry "x": hard link to ".", which is a directory"#),
        (&["l -> /etc", "x => l/passwd"], r#"entry "x": hard link to "etc/passwd", which does not exist"#),
        (&[".wh."], r#"entry ".wh.": whiteout of no file"#),
        (&[".wh.."], r#"entry ".wh..": whiteout of no file"#),
        (&["a/.wh..."], r#"entry "a/.wh...": whiteout of no file"#),
        (&["l -> d/.wh.x", "l/y"], r#"entry "l/y": a link leads to the name of a whiteout"#),
        (&["f", "f/x"], r#"entry "f/x": parent "f" is not a directory"#),
        (&["a -> b", "b -> a", "a/x"], r#"entry "a/x": too many symbolic links in "a""#),
        (&["./ -> /etc"], r#"entry "./": the root must be a directory"#),
        (&["a/.wh..wh.", "a/.wh..wh..opq/x", "a/.wh."], r#"entry "a/.wh.": whiteout of no file"#),
        (&[&long], &format!(r#"entry "{shown}…": name longer than a path may be"#)),
        (
            &[&"n".repeat(256)],
            &format!(r#"entry "{}": name with a part longer than 255 bytes"#, "n".repeat(256)),
        ),
    ] {
        assert_eq!(Store::new().refuse(&[tar(names)], &[]), message);
    }
}

#[test]
fn absolute_names_stay_inside() {
    let directories = apply(&[tar(&["/a", "//b/c", "/l -> /etc/passwd"])]);
    assert_eq!(common::list(&directories[0]), ["a", "b/", "b/c", "l -> /etc/passwd"]);
    // Not even the link in the way counts: `..` removes its name.
    let directories = apply(&[tar(&["l -> /etc", "l/../a", "d/../b", "d/x/../../c", "d/h => e/../b"])]);
    assert_eq!(common::list(&directories[0]), ["a", "b", "c", "d/", "d/h", "l -> /etc"]);
}

#[test]
fn links_never_lead_out() {
    let outside = tempfile::tempdir().unwrap();
    let path = outside.path().to_str().unwrap();
    std::fs::write(outside.path().join("secret"), "s").unwrap();
    let link = format!("l -> {path}");
    let up = format!("u -> ../../../../../../../../../../../..{path}");
    let itself = format!("p -> /proc/self/root{path}");
    for names in [
        &[&link[..], "l/x", "l/d/"][..],
        &[&up, "u/x", "u/d/"],
        &[&itself, "p/x"],
        &["d/", "d/x", "d/.wh..wh..opq", &format!("d -> {path}"), "d/secret", "d/x"],
    ] {
        // In one layer, and with the link in the layer below.
        apply(&[tar(names)]);
        apply(&[tar(&names[..1]), tar(&names[1..])]);
    }
    let found: Vec<_> =
        std::fs::read_dir(outside.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(found, ["secret"]);
    assert_eq!(std::fs::read(outside.path().join("secret")).unwrap(), b"s");
    // A file of the same name replaces the link. Nothing is written through the link.
    let secret = format!("s -> {path}/secret");
    apply(&[tar(&[&secret, "s"])]);
    assert_eq!(std::fs::read(outside.path().join("secret")).unwrap(), b"s");
}

/// A lower layer has a link to the outside where a layer above it has a directory. The link's target must not
/// be used.
#[test]
fn links_that_a_layer_between_hides_lead_nowhere() {
    let outside = tempfile::tempdir().unwrap();
    let path = outside.path().to_str().unwrap();
    std::fs::create_dir(outside.path().join("e")).unwrap();
    std::fs::write(outside.path().join("e/secret"), "s").unwrap();
    for target in
        [path.to_owned(), format!("/proc/self/root{path}"), format!("../../../../../../../..{path}")]
    {
        let layers = [tar(&[&format!("d -> {target}")]), tar(&["d/", "d/e/"]), tar(&["x => d/e/secret"])];
        let message = r#"entry "x": hard link to "d/e/secret", which does not exist"#;
        assert_eq!(Store::new().refuse(&layers, &[]), message, "{target}");
    }
}

#[test]
fn devices() {
    let device =
        |kind, device| archive(&[(Entry { device, mode: 0o600, ..Entry::new(kind, "dev/x") }, &b""[..])]);
    let message = r#"entry "dev/x": device nodes are not allowed"#;
    assert_eq!(Store::new().refuse(&[device(Kind::CharDevice, (1, 3))], &["--no-devices"]), message);
    assert_eq!(Store::new().refuse(&[device(Kind::BlockDevice, (8, 0))], &["--no-devices"]), message);
    let message = r#"entry "dev/x": character device 0:0 is a whiteout of overlayfs"#;
    assert_eq!(Store::new().refuse(&[device(Kind::CharDevice, (0, 0))], &[]), message);
    // The kernel would truncate 4096:0 to the whiteout.
    let cut = altered(device(Kind::CharDevice, (0, 0)), 329, b"0010000\0");
    assert_eq!(Store::new().refuse(&[cut], &[]), "header at byte 0: device out of range");
    // A layer that was unpacked while device nodes were allowed is refused as well. A layer without them is
    // not.
    let (with, without) = (device(Kind::CharDevice, (1, 3)), tar(&["dev/", ".wh.x"]));
    let store = Store::new();
    store.apply(&[tar(&["x"]), with.clone(), without.clone()]);
    let below = tar(&["x"]);
    let image = store.image(&[(&below, &below), (&with, &with)]);
    let run = store.run(&image, &["--no-devices"]);
    let message =
        format!("layer-apply: layer {}: it holds device nodes, which are not allowed\n", Digest::of(&with));
    assert_eq!((run.status, run.stderr), (1, message));
    let run = store.run(&store.image(&[(&below, &below), (&without, &without)]), &["--no-devices"]);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
}

/// An archive with some changed bytes in its first header, and a correct checksum of the header.
fn altered(mut archive: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    archive[at..at + bytes.len()].copy_from_slice(bytes);
    archive[148..156].fill(b' ');
    let sum: u32 = archive[..512].iter().map(|&byte| u32::from(byte)).sum();
    archive[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    archive
}

#[test]
fn headers_that_lie() {
    let plain = tar(&["f"]);
    let mut flipped = plain.clone();
    flipped[0] = b'g';
    for (archive, message) in [
        (
            altered(plain.clone(), 124, b"77777777777\0"),
            r#"entry "f": archive ends in the middle of an entry"#,
        ),
        (
            altered(plain.clone(), 124, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
            "header at byte 0: invalid size",
        ),
        (
            altered(plain.clone(), 124, b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"),
            "header at byte 0: invalid size",
        ),
        (altered(plain.clone(), 108, b"\x80\0\0\x01\0\0\0\0"), "header at byte 0: owner out of range"),
        // For root, chown(2) would take this id as "leave it unchanged".
        (altered(plain.clone(), 108, b"\x80\0\0\0\xff\xff\xff\xff"), "header at byte 0: owner out of range"),
        (
            altered(plain.clone(), 116, b"\xff\xff\xff\xff\xff\xff\xff\xff"),
            "header at byte 0: owner out of range",
        ),
        (altered(plain.clone(), 100, b"\xff\xff\xff\xff\xff\xff\xff\xff"), "header at byte 0: invalid mode"),
        (
            altered(plain.clone(), 136, b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"),
            "header at byte 0: invalid mtime",
        ),
        (altered(plain.clone(), 156, b"V"), r#"entry "f": type 'V' is not allowed in a layer"#),
        (altered(plain.clone(), 156, b"x"), "extended header at byte 0: record without a length"),
        (flipped, "header at byte 0: checksum does not match"),
        (plain[..512].to_vec(), r#"entry "f": archive ends in the middle of an entry"#),
        ([&plain[..1536], b"tail"].concat(), "data after a single block of zeros at byte 1536"),
        (b"no archive".to_vec(), "archive ends in the middle of an entry"),
    ] {
        assert_eq!(Store::new().refuse(&[archive], &[]), message);
    }
}

#[test]
fn endless_extended_headers() {
    let header = |size: usize| {
        let octal = format!("{size:011o}\0");
        let head = altered(altered(tar(&["f"])[..512].to_vec(), 156, b"x"), 124, octal.as_bytes());
        [head, vec![b'0'; size.next_multiple_of(512)]].concat()
    };
    let empty = header(0).repeat(1000);
    assert_eq!(Store::new().refuse(&[empty], &[]), "extended header at byte 8192: more than any entry needs");
    let large = header(2 << 20);
    assert_eq!(Store::new().refuse(&[large], &[]), "extended header at byte 0: more than any entry needs");
    // Global headers apply to all entries. There may be many of them, and their content is kept.
    let global = |records: &str| {
        let size = format!("{:011o}\0", records.len());
        let head = altered(altered(tar(&["f"])[..512].to_vec(), 156, b"g"), 124, size.as_bytes());
        [&head[..], records.as_bytes(), &vec![0; records.len().wrapping_neg() % 512]].concat()
    };
    let attributes: String = (0..1025).map(|n| format!("30 SCHILY.xattr.user.{n:07}=\n")).collect();
    let many = [global(&attributes), tar(&["f"])].concat();
    let message = "extended header at byte 0: more extended attributes than any file has";
    assert_eq!(Store::new().refuse(&[many], &[]), message);
    let comment = format!("30014 comment={}\n", "c".repeat(30_000 - 1));
    let endless = [global(&comment), tar(&["f"])[..1024].to_vec()].concat().repeat(3);
    let message = "more than any archive says of all its entries";
    let refused = Store::new().refuse(&[endless], &[]);
    assert!(refused.ends_with(message), "{refused}");
    // A name with a NUL, which only PAX can express.
    let record = b"12 path=a\0b\n";
    let head = altered(altered(tar(&["f"])[..512].to_vec(), 156, b"x"), 124, b"00000000014\0");
    let nul = [&head[..], record, &[0; 500], &tar(&["f"])].concat();
    assert_eq!(Store::new().refuse(&[nul], &[]), "extended header at byte 0: name with a NUL");
}

#[test]
fn limits() {
    let zeros = vec![0; 80 << 20];
    let big = archive(&[file("zeros", &zeros)]);
    let bomb = gzip(&big);
    let refuse = |arguments: &[&str]| Store::new().refuse_blobs(&[(&bomb, &big)], arguments);
    assert_eq!(refuse(&["--max-size", "16M"]), "unpacked size exceeds 16777216 bytes");
    assert_eq!(refuse(&["--max-ratio", "100"]), "unpacked size exceeds 100 times the compressed size");
    // zstd compresses 80 MiB of zeros to some KiB.
    let zstd = zstd::bulk::compress(&big, 1).unwrap();
    let refused = Store::new().refuse_blobs(&[(&zstd, &big)], &["--max-ratio", "999"]);
    assert_eq!(refused, "unpacked size exceeds 999 times the compressed size");
    // Holes, and copies from lower layers, count towards the limit.
    let size = 20_u64 << 20;
    let hole = Entry { size, sparse: Some(Vec::new()), ..Entry::new(Kind::File, "f") };
    let hole = sparse(&hole);
    assert_eq!(Store::new().refuse(&[hole], &["--max-size", "16M"]), "unpacked size exceeds 16777216 bytes");
    let below = |name| archive(&[file(name, &zeros[..10 << 20])]);
    let links = tar(&["c => a", "d => b"]);
    let message = Store::new().refuse(&[below("a"), below("b"), links], &["--max-size", "16M"]);
    assert_eq!(message, "unpacked size exceeds 16777216 bytes");
    // So do directories that no entry lists.
    let deep = tar(&[&vec!["d"; 1000].join("/"), &vec!["e"; 1000].join("/")]);
    assert_eq!(Store::new().refuse(&[deep], &["--max-entries", "1500"]), "more than 1500 entries");
    let many = tar(&["a", "b", "c"]);
    assert_eq!(
        Store::new().refuse(std::slice::from_ref(&many), &["--max-entries", "2"]),
        "more than 2 entries"
    );
    let store = Store::new();
    assert_eq!(store.run(&store.image(&[(&many, &many)]), &["--max-entries", "3"]).status, 0);
}

/// A zstd frame says how much memory its decompression needs, and an attacker can choose the value.
#[test]
fn a_window_that_is_too_large() {
    let plain = archive(&[file("f", &vec![7; 1 << 20])]);
    let compress = |window: u32| {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(window).unwrap();
        std::io::Write::write_all(&mut encoder, &plain).unwrap();
        encoder.finish().unwrap()
    };
    let message = "decompress blob: Frame requires too much memory for decoding";
    assert_eq!(Store::new().refuse_blobs(&[(&compress(28), &plain)], &[]), message);
    let store = Store::new();
    let run = store.run(&store.image(&[(&compress(27), &plain)]), &[]);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
}

/// All properties of a directory are kept until the end of its layer.
#[test]
fn attributes_that_would_fill_the_memory() {
    let value = vec![0; 65_000];
    let xattrs: Vec<_> = (0..16).map(|n| (format!("user.{n}").into_bytes(), value.clone())).collect();
    let entries: Vec<(Entry, &[u8])> = (0..270)
        .map(|n| (Entry { xattrs: xattrs.clone(), ..directory(&format!("d{n}/")) }, &b""[..]))
        .collect();
    let plain = archive(&entries);
    let blob = zstd::bulk::compress(&plain, 1).unwrap();
    let message = Store::new().refuse_blobs(&[(&blob, &plain)], &["--max-ratio", "1000000"]);
    assert_eq!(message, "its names, directories, whiteouts and links take more than 256 MiB of memory");
}

#[test]
fn damaged_blobs() {
    let plain = tar(&["a", "b"]);
    let blob = gzip(&plain);
    let (first, second) = (gzip(&plain[..700]), gzip(&plain[700..]));
    let from_end = |back: usize| {
        let mut blob = blob.clone();
        let at = blob.len() - back;
        blob[at] ^= 1;
        blob
    };
    let checksum = "decompress blob: corrupt gzip stream does not have a matching checksum";
    for (blob, message) in [
        (blob[..blob.len() - 1].to_vec(), "decompress blob: unexpected end of file"),
        (blob[..12].to_vec(), "decompress blob: incomplete deflate stream"),
        // The archive is valid: only gzip's trailer is wrong.
        (from_end(8), checksum),
        (from_end(1), checksum),
        // The second of two gzip members.
        ([&first[..], &second[..second.len() - 5]].concat(), "decompress blob: unexpected end of file"),
        ([&first[..], b"between", &second].concat(), "decompress blob: data after the end of gzip"),
        ([&blob[..], b"tail"].concat(), "decompress blob: data after the end of gzip"),
        ([&blob[..], &[0]].concat(), "decompress blob: data after the end of gzip"),
    ] {
        assert_eq!(Store::new().refuse_blobs(&[(&blob, &plain)], &[]), message);
    }
    // Blobs whose bytes were changed in the store are reported as damaged, whatever error occurred first.
    let mut other_name = plain.clone();
    other_name[600] ^= 1;
    let mut no_header = plain.clone();
    no_header[148] ^= 1;
    let mut no_stream = blob.clone();
    no_stream[20] ^= 0xff;
    for (whole, changed) in [(&plain, other_name), (&plain, no_header), (&blob, no_stream)] {
        let store = Store::new();
        let document = store.image(&[(whole, &plain)]);
        let digest = Digest::of(whole);
        std::fs::write(store.layout.blob_path(&digest), &changed).unwrap();
        let run = store.run(&document, &[]);
        let found = Digest::of(&changed);
        let message = format!(
            "layer-apply: layer {digest}: read blob: content of {digest} has digest {found}: the image store is damaged"
        );
        assert_eq!((run.status, run.stderr.lines().next()), (1, Some(&message[..])));
    }
}

#[test]
fn a_wrong_diff_id() {
    let (plain, other) = (tar(&["a"]), tar(&["b"]));
    let message = Store::new().refuse_blobs(&[(&plain, &other)], &[]);
    assert_eq!(
        message,
        format!("archive has DiffID {}, the image says {}", Digest::of(&plain), Digest::of(&other))
    );
}

#[test]
fn sparse_files_that_do_not_hold_together() {
    // GNU's old format: one run of 10 bytes at 0 in a file of 5.
    let mut archive = altered(tar(&["f123456789"]), 156, b"S");
    archive[257..265].copy_from_slice(b"ustar  \0");
    archive[386..410].copy_from_slice(b"00000000000\x0000000000012\0");
    let short = altered(archive.clone(), 483, b"00000000005\0");
    let message = "header at byte 0: sparse file with a map that does not hold together";
    assert_eq!(Store::new().refuse(&[short], &[]), message);
    // Version 1.0: a map with an absurd number of runs, but without the runs.
    let hole = Entry { size: 1, sparse: Some(Vec::new()), ..Entry::new(Kind::File, "f") };
    let mut many = sparse(&hole);
    let map = many.len() - 1024 - 512;
    many[map..map + 8].copy_from_slice(b"9000000\n");
    let message = "header at byte 1536: sparse file in too many pieces";
    assert_eq!(Store::new().refuse(&[many], &[]), message);
    let right = altered(archive, 483, b"00000100000\0");
    let directories = apply(&[right]);
    let content = std::fs::read(directories[0].join("f123456789")).unwrap();
    assert_eq!((content.len(), &content[..10]), (32768, &b"f123456789"[..]));
}

#[test]
fn a_deep_tree_that_becomes_a_file() {
    let deep = vec!["d"; 2000].join("/");
    let layer = archive(&[(directory(&deep), b""), file("d", b"x")]);
    let directories = apply(&[layer]);
    assert_eq!(std::fs::read(directories[0].join("d")).unwrap(), b"x");
}

/// An archive of one file that consists of a hole, in the form of GNU tar's version 1.0.
fn sparse(entry: &Entry) -> Vec<u8> {
    let records: String = [
        ("GNU.sparse.major", "1".to_owned()),
        ("GNU.sparse.minor", "0".to_owned()),
        ("GNU.sparse.realsize", entry.size.to_string()),
    ]
    .iter()
    .map(|(key, value)| {
        let rest = key.len() + value.len() + 3;
        format!("{} {key}={value}\n", rest + (rest + 2).to_string().len())
    })
    .collect();
    let size = format!("{:011o}\0", records.len());
    let head = altered(altered(tar(&["f"])[..512].to_vec(), 156, b"x"), 124, size.as_bytes());
    let padding = vec![0; 512 - records.len()];
    let map = [&b"0\n"[..], &[0; 510]].concat();
    let file = altered(tar(&["f"])[..512].to_vec(), 124, b"00000001000\0");
    [&head[..], records.as_bytes(), &padding, &file, &map, &[0; 1024]].concat()
}

#[test]
fn manifests_that_are_too_much() {
    let refuse = |manifest: &[u8], size: Option<u64>| {
        let store = Store::new();
        let mut descriptor = serde_json::to_value(
            store.layout.write_blob(oci::spec::MediaType::ImageManifest, manifest).unwrap(),
        )
        .unwrap();
        if let Some(size) = size {
            let path = store.layout.blob_path(&Digest::of(manifest));
            std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(size).unwrap();
            descriptor["size"] = size.into();
        }
        let document = serde_json::json!({"stave": 1, "image": {"reference": "t", "descriptor": descriptor,
            "configuration": {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}}});
        let run = store.run(&document, &[]);
        assert_eq!(run.status, 1);
        run.stderr
    };
    let message = refuse(b"{}", Some(100 << 20));
    assert!(message.ends_with("more than 4 MiB are refused\n"), "{message}");
    let message = refuse("[".repeat(100_000).as_bytes(), None);
    assert!(message.contains("recursion limit exceeded"), "{message}");
}
