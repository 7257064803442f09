//! The picture of a build on a terminal.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod common;

use std::{
    fs::File,
    io::Read,
    process::{Command, Stdio},
};

use common::Fixture;
use rustix::{
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use serde_json::Value;

/// What a build wrote to its terminal, its document if it succeeded.
struct Seen {
    text: String,
    document: Option<Value>,
}

impl Seen {
    /// Builds the context with standard error on a terminal of 60 columns.
    fn of(fixture: &Fixture, dockerfile: &str, arguments: &[&str]) -> Self {
        fixture.write("Dockerfile", dockerfile);
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let terminal = openpt(flags).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let size = Winsize { ws_row: 24, ws_col: 60, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&terminal, size).unwrap();
        let end = ioctl_tiocgptpeer(&terminal, flags).unwrap();
        let child = Command::new(assert_cmd::cargo::cargo_bin!("img-build"))
            .args(["--network", "none", "-t", "built"])
            .args(arguments)
            .arg(fixture.path("context"))
            .env("STAVE_ROOT", fixture.root())
            .env("STAVE_RUN", fixture.path("run"))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(end)
            .spawn()
            .unwrap();
        let mut text = Vec::new();
        // A terminal without users says EIO at its end.
        let _ = File::from(terminal).read_to_end(&mut text);
        let output = child.wait_with_output().unwrap();
        let document = output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap());
        Self { text: String::from_utf8(text).unwrap(), document }
    }

    /// The lines that stay on the terminal.
    fn left(&self) -> Vec<String> {
        let mut screen: Vec<String> = Vec::new();
        let mut row = 0;
        let mut rest = self.text.as_str();
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            if screen.len() <= row {
                screen.resize(row + 1, String::new());
            }
            match c {
                '\n' => row += 1,
                '\r' => {}
                '\x1b' => {
                    let end = rest.find(|c: char| c.is_ascii_alphabetic()).unwrap();
                    let (number, kind) = (&rest[1..end], &rest[end..=end]);
                    match kind {
                        "A" => {
                            row -= number.parse::<usize>().unwrap();
                            // Everything is drawn again.
                            screen.truncate(row);
                        }
                        "J" => screen.truncate(row),
                        "K" | "h" | "l" => {}
                        other => panic!("{other} in {:?}", self.text),
                    }
                    rest = &rest[end + 1..];
                }
                c => screen[row].push(c),
            }
        }
        screen.retain(|line| !line.is_empty());
        screen
    }
}

/// The line without its time.
fn timeless(line: &str) -> &str {
    let is_of_time = |c: char| c.is_ascii_digit() || matches!(c, '.' | 's');
    line.trim_end_matches(is_of_time).trim_end()
}

#[test]
fn a_line_for_each_step_shows_its_seconds_and_the_last_output_of_its_command() {
    let fixture = Fixture::new();
    let text = "FROM busybox\nLABEL long=\"a label that is longer than the line of this terminal\"\nRUN echo said; sleep 1.5\n";
    let seen = Seen::of(&fixture, text, &[]);
    assert!(seen.text.contains(" => => # said\x1b[K"), "{:?}", seen.text);
    let line = format!(" => [3/3] RUN echo said; sleep 1.5{}", " ".repeat(60 - 34 - 4));
    let seconds = |shown: &str| shown.get(..3).and_then(|time| time.parse::<f64>().ok());
    let times: Vec<f64> = seen.text.split(&line).skip(1).filter_map(seconds).collect();
    assert!(times.is_sorted() && times.len() > 2 && times.first() < times.last(), "{times:?}");
    let left = seen.left();
    assert!(left[0].starts_with("[+] Building ") && left[0].ends_with("s (3/3) FINISHED"), "{left:?}");
    assert_eq!(timeless(&left[1]), " => [1/3] FROM busybox");
    assert!(left.iter().all(|line| line.chars().count() <= 60), "{left:?}");
    assert!(left[2].starts_with(" => [2/3] LABEL long=\"a label that is longer than the"), "{left:?}");
    assert_eq!(timeless(&left[3]), " => [3/3] RUN echo said; sleep 1.5");
    assert!(left[4].starts_with("Successfully built "), "{left:?}");
    assert_eq!(left[5..], ["Successfully tagged built:latest"]);
    let again = Seen::of(&fixture, text, &[]);
    assert_eq!(again.document, seen.document);
    assert_eq!(timeless(&again.left()[3]), " => CACHED [3/3] RUN echo said; sleep 1.5");
}

#[test]
fn the_output_of_a_failed_command_is_below_its_line() {
    let fixture = Fixture::new();
    let seen = Seen::of(&fixture, "FROM busybox\nRUN echo why; echo more; exit 3\nRUN true\n", &[]);
    assert_eq!(seen.document, None);
    let left = seen.left();
    assert!(left[0].ends_with("s (2/3)"), "{left:?}");
    assert_eq!(timeless(&left[2]), " => ERROR [2/3] RUN echo why; echo more; exit 3");
    assert_eq!(left[3..5], ["why", "more"]);
    assert!(left.last().is_some_and(|line| line.starts_with("img-build: ")), "{left:?}");
}

/// What comes after the steps may fail.
#[test]
fn an_error_after_the_last_step_is_not_below_finished() {
    let fixture = Fixture::new();
    std::fs::write(fixture.path("file"), "").unwrap();
    let place = fixture.path("file/below").display().to_string();
    for flags in [
        ["--cache-to", &format!("type=local,dest={place}")],
        ["--metadata-file", "/dev/full"],
        ["-o", &place],
    ] {
        let seen = Seen::of(&fixture, "FROM busybox\nRUN true\n", &flags);
        let left = seen.left();
        assert_eq!(seen.document, None, "{left:?}");
        assert!(left[0].starts_with("[+] Building ") && left[0].ends_with("s (2/2)"), "{left:?}");
        assert!(left[3].starts_with("Successfully built "), "{left:?}");
        assert!(left.iter().any(|line| line.starts_with("img-build: ")), "{left:?}");
    }
}

#[test]
fn stages_that_are_built_side_by_side_have_lines_of_their_own() {
    let fixture = Fixture::new();
    let text = "FROM busybox AS a\nRUN sleep 1; false\nFROM busybox AS b\nRUN sleep 30\nFROM scratch\nCOPY --from=a / /\nCOPY --from=b / /\n";
    let seen = Seen::of(&fixture, text, &["--jobs", "2"]);
    let left = seen.left();
    let begins = |text: &str| left.iter().any(|line| line.starts_with(text));
    assert!(begins(" => ERROR [a 2/7] RUN sleep 1; false"), "{left:?}");
    assert!(begins(" => CANCELED [b 4/7] RUN sleep 30"), "{left:?}");
}
