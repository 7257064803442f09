//! The functions that the fuzzers run on arbitrary bytes. `tests/corpus.rs` runs them on the kept inputs.
//!
//! A target fails by a panic, in the code that it calls or in its own assertions.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use archive::{Entry, Kind, Reader, Writer};
use builder::{
    arguments::Global,
    dockerfile::expand::Expander,
    ignore::Ignore,
    lint::{Checks, Surroundings, lint},
    plan::{Aliases, plan},
};
use layer::apply::{Below, Limits, Options, Target, unpack};
use oci::{
    Digest, Layout, Platform, Reference,
    load::Input,
    spec::{Descriptor, MediaType},
};
use rustix::fs::{CWD, Mode, OFlags, openat};

/// The largest input in bytes. Larger ones find nothing new.
const LONGEST: usize = 1 << 20;

/// The archive of a layer is read to its end and written again. The result must be read as the same.
pub(crate) fn tar(data: &[u8]) {
    let repaired = repair(data);
    let mut reader = Reader::new(&repaired[..]);
    let (mut writer, mut entries) = (Writer::new(Vec::new()), Vec::new());
    while let Ok(Some(entry)) = reader.next() {
        if let Some(segments) = &entry.sparse {
            assert_eq!(segments.iter().map(|segment| segment.length).sum::<u64>(), entry.stored);
            assert!(segments.iter().all(|segment| segment.offset + segment.length <= entry.size));
        }
        let mut content = Vec::new();
        while let Ok(some @ [_, ..]) = reader.data() {
            content.extend_from_slice(some);
            let length = some.len();
            reader.consume(length);
        }
        assert!(content.len() as u64 <= entry.stored);
        // For every reader, a name with a slash at its end means a directory.
        let file_as_directory = entry.kind == Kind::File && entry.path.ends_with(b"/");
        if content.len() as u64 == entry.stored && entry.sparse.is_none() && !file_as_directory {
            writer.entry(&entry).unwrap();
            writer.data(&content).unwrap();
            entries.push((entry, content));
        }
    }
    let written = writer.finish().unwrap();
    let mut reader = Reader::new(&written[..]);
    for (entry, content) in entries {
        let again = reader.next().unwrap().unwrap();
        assert_eq!(again, entry);
        let mut read = Vec::new();
        while let some @ [_, ..] = reader.data().unwrap() {
            read.extend_from_slice(some);
            let length = some.len();
            reader.consume(length);
        }
        assert_eq!(read, content);
    }
    assert_eq!(reader.next().unwrap(), None);
}

/// The input of img-load: an archive of images, or the tar of a root file system. Nothing is stored.
pub(crate) fn archive(data: &[u8]) {
    let repaired = repair(data);
    if let Ok(input) = Input::stream("input".to_owned(), io::Cursor::new(repaired))
        && let Ok(intake) = input.read(&scratch().layout, None)
    {
        assert!(!intake.images().is_empty());
    }
}

/// An image's configuration, manifest and index, with a NUL between them. `@DIGEST@` and `@SIZE@` in one of
/// them are those of the previous one. The rest is the layout's own index.
pub(crate) fn manifest(data: &[u8]) {
    let Scratch { layout, directory } = scratch();
    let mut parts = data.splitn(4, |&byte| byte == 0);
    let mut before: Option<Descriptor> = None;
    for media_type in [MediaType::ImageConfig, MediaType::ImageManifest, MediaType::ImageIndex] {
        let Some(part) = parts.next() else { return };
        let mut text = part.to_vec();
        if let Some(before) = &before {
            text = replace(&text, b"@DIGEST@", before.digest().to_string().as_bytes());
            text = replace(&text, b"@SIZE@", before.size().to_string().as_bytes());
        }
        let descriptor = layout.write_blob(media_type, &text).unwrap();
        for platform in [None, Some("linux/arm64/v8".parse::<Platform>().unwrap())] {
            if let Ok(image) = layout.image(&descriptor, platform.as_ref()) {
                assert_eq!(image.manifest.layers().len(), image.configuration.rootfs().diff_ids().len());
                let _ = (image.layers(), image.id(), image.platform());
            }
        }
        let _ = layout.manifests(&descriptor);
        if let Some(before) = before.replace(descriptor) {
            let _ = fs::remove_file(layout.blob_path(&Digest::try_from(before.digest()).unwrap()));
        }
    }
    if let Some(before) = before {
        let _ = fs::remove_file(layout.blob_path(&Digest::try_from(before.digest()).unwrap()));
    }
    if let Some(index) = parts.next() {
        fs::write(directory.join("images/index.json"), index).unwrap();
        if layout.list().is_ok() {
            let _ = layout.summaries();
            let _ = layout.resolve("debian");
        }
    }
}

/// A reference, a digest, a platform: each printed form means the same when it is parsed again.
pub(crate) fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(reference) = text.parse::<Reference>() {
        for shown in [reference.canonical(), reference.to_string()] {
            assert_eq!(shown.parse::<Reference>().unwrap(), reference, "{shown}");
        }
        assert!(reference.name().len() <= 255);
        // References become parts of URLs and of paths.
        let safe =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'?' && byte != b'#');
        assert!(safe(&reference.canonical()));
        assert!(reference.repository().split('/').all(|part| !part.is_empty() && !part.starts_with('.')));
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        assert!(digest.hex().bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
    if let Ok(platform) = text.parse::<Platform>() {
        let shown = platform.to_string();
        assert_eq!(shown.parse::<Platform>().unwrap(), platform, "{shown}");
    }
}

/// A Dockerfile is parsed, planned and checked. Each instruction is within the file, and the text that
/// ONBUILD keeps can be parsed again.
pub(crate) fn dockerfile(data: &[u8]) {
    let data = &data[..data.len().min(LONGEST)];
    let Ok(file) = builder::dockerfile::parse(data) else { return };
    let lines = String::from_utf8_lossy(data).lines().count();
    for statement in file.stages.iter().flat_map(|stage| &stage.statements) {
        let last = builder::dockerfile::last_line(data, statement.line);
        assert!(statement.line <= last && last <= lines);
    }
    let arguments = &file.arguments;
    let Ok(global) = Global::new(Default::default(), None, arguments, file.escape, "default") else { return };
    let aliases = Aliases::default();
    let Ok(plan) = plan(&file, [file.stages.len() - 1], &global, &aliases, &|_, _| Vec::new()) else {
        return;
    };
    assert!(plan.stages.iter().all(|at| plan.needs[*at].iter().all(|need| plan.stages.contains(need))));
    let ignore = Ignore::default();
    let around = Surroundings { plan: &plan, global: &global, image: &|_, _| None, ignore: &ignore };
    for finding in lint(&file, &around, &Checks::default()) {
        assert!((1..=lines).contains(&finding.line), "{finding}");
    }
}

/// Variables as lines `NAME=value`, and after a NUL a word that uses them. The word is expanded within
/// limits.
pub(crate) fn expansion(data: &[u8]) {
    let text = String::from_utf8_lossy(&data[..data.len().min(LONGEST)]).into_owned();
    let (variables, word) = text.split_once('\0').unwrap_or(("", &text));
    let variables: BTreeMap<&str, &str> = variables.lines().filter_map(|line| line.split_once('=')).collect();
    let lookup = |name: &str| variables.get(name).map(|value| (*value).to_owned());
    for escape in ['\\', '`'] {
        let expander = Expander::new(escape, &lookup);
        for expander in
            [expander, Expander { skip_quotes: true, ..expander }, Expander { raw_quotes: true, ..expander }]
        {
            if let Ok(expanded) = expander.word(word) {
                assert!(
                    expanded.len()
                        <= (4 * LONGEST).max(word.len()) + variables.values().map(|v| v.len()).sum::<usize>()
                );
            }
            let _ = expander.words(word);
        }
    }
    if !word.contains(['$', '\'', '"', '\\']) {
        assert_eq!(Expander::new('\\', &lookup).word(word).as_deref(), Ok(word));
    }
}

/// Layers as lines, lowest first, with `--` between them: `name/` is a directory, `name` an empty file, `name
/// -> target` a symbolic link, `name => target` a hard link, `name |` a FIFO, `name *` a whiteout device. `@`
/// is a directory outside. The layers are unpacked one after the other. Nothing outside changes, and no
/// whiteout is left as a name.
pub(crate) fn whiteout(data: &[u8]) {
    if data.len() > 4096 {
        return;
    }
    let base = &scratch().directory;
    let (outside, layers) = (base.join("outside"), base.join("layers"));
    let _ = fs::remove_dir_all(&layers);
    fs::create_dir(&layers).unwrap();
    let before = state(&outside);
    let text = replace(data, b"@", outside.as_os_str().as_bytes());
    let mut lowest_first: Vec<PathBuf> = Vec::new();
    for (number, lines) in split(&text, b"--\n").into_iter().enumerate().take(4) {
        let mut writer = Writer::new(Vec::new());
        for line in lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            writer.entry(&entry(line)).unwrap();
        }
        let directory = layers.join(number.to_string());
        fs::create_dir(&directory).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let target = openat(CWD, &directory, flags, Mode::empty()).unwrap();
        let options = Options { limits: Limits { entries: 1000, ..Limits::default() }, ..Options::default() };
        let blob = writer.finish().unwrap();
        let unpacked =
            unpack(&blob[..], Target::Directory(target), &Below::open(&lowest_first).unwrap(), &options);
        assert_eq!(state(&outside), before);
        if unpacked.is_err() {
            break;
        }
        inspect(&directory);
        lowest_first.push(directory);
    }
}

fn entry(line: &[u8]) -> Entry {
    let mode = 0o755;
    for (word, kind) in [(&b" -> "[..], Kind::Symlink), (b" => ", Kind::HardLink)] {
        if let Some(at) = line.windows(4).position(|window| window == word) {
            return Entry { mode, link: line[at + 4..].to_vec(), ..Entry::new(kind, &line[..at]) };
        }
    }
    let (name, kind) = match line {
        [name @ .., b' ', b'|'] => (name, Kind::Fifo),
        [name @ .., b' ', b'*'] => (name, Kind::CharDevice),
        [.., b'/'] => (line, Kind::Directory),
        _ => (line, Kind::File),
    };
    Entry { mode, ..Entry::new(kind, name) }
}

/// Checks what an unpacked layer may contain.
fn inspect(directory: &Path) {
    for found in fs::read_dir(directory).unwrap() {
        let found = found.unwrap();
        assert!(!found.file_name().as_bytes().starts_with(b".wh."), "{found:?}");
        let status = fs::symlink_metadata(found.path()).unwrap();
        if status.is_dir() {
            inspect(&found.path());
        } else if status.mode() & 0o170_000 == 0o020_000 {
            assert_eq!(status.rdev(), 0, "{found:?}");
        }
    }
}

/// Inode, number of links, mode, and the nanoseconds of both times.
type Facts = (u64, u64, u32, i64, i64);

/// The visible state of a directory and its one file.
fn state(outside: &Path) -> (BTreeSet<PathBuf>, Vec<Facts>) {
    let names = fs::read_dir(outside).unwrap().map(|entry| entry.unwrap().path()).collect();
    let facts = [outside, &outside.join("secret")].map(|path| {
        let found = fs::symlink_metadata(path).unwrap();
        (found.ino(), found.nlink(), found.mode(), found.mtime_nsec(), found.ctime_nsec())
    });
    (names, facts.to_vec())
}

/// The working directory of the targets, in memory, once for each process.
struct Scratch {
    directory: PathBuf,
    layout: Layout,
}

fn scratch() -> &'static Scratch {
    static MADE: OnceLock<Scratch> = OnceLock::new();
    MADE.get_or_init(|| {
        let directory = PathBuf::from(format!("/dev/shm/stave-fuzz-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(directory.join("outside")).unwrap();
        fs::write(directory.join("outside/secret"), "secret").unwrap();
        let layout = Layout::open_or_create(directory.join("images")).unwrap();
        Scratch { directory, layout }
    })
}

/// Removes what the targets made in this process.
pub(crate) fn clean() {
    let _ = fs::remove_dir_all(&scratch().directory);
}

/// Gives headers their right checksums, because no fuzzer finds these by chance.
fn repair(data: &[u8]) -> Vec<u8> {
    let mut data = data[..data.len().min(LONGEST)].to_vec();
    for block in data.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    data
}

fn replace(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    split(text, from).join(to)
}

fn split<'a>(text: &'a [u8], by: &[u8]) -> Vec<&'a [u8]> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.windows(by.len()).position(|window| window == by) {
        parts.push(&rest[..at]);
        rest = &rest[at + by.len()..];
    }
    parts.push(rest);
    parts
}
