//! The part of a Dockerfile that an error is about, as BuildKit shows it.

use crate::dockerfile;

/// Lines shown before and behind the instruction.
const AROUND: usize = 2;
/// An instruction of more lines is cut.
const MOST: usize = 20;
/// Longer lines are cut.
const WIDTH: usize = 160;

/// The instruction on the line `first`, marked, with its surroundings. Nothing where there is no such line.
pub(crate) fn excerpt(name: &str, text: &[u8], first: usize) -> String {
    let last = dockerfile::last_line(text, first).min(first + MOST);
    let text = String::from_utf8_lossy(text);
    let all: Vec<&str> = text.lines().collect();
    if first == 0 || first > all.len() {
        return String::new();
    }
    let rule = "-".repeat(20);
    let mut shown = format!("{name}:{first}\n{rule}\n");
    for (at, line) in all.iter().enumerate().skip(first.saturating_sub(AROUND + 1)) {
        let number = at + 1;
        if number > last + AROUND {
            break;
        }
        let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
        let line: String = line.chars().take(WIDTH).map(|c| if c.is_control() { ' ' } else { c }).collect();
        shown.push_str(format!("{number:4} | {mark} {line}").trim_end());
        shown.push('\n');
    }
    shown + &rule + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instruction_is_marked() {
        let text = b"FROM a\n\nENV A=b\nRUN <<E cat \\\n  x\nyz\nE\nCMD c\n";
        assert_eq!(
            excerpt("f", text, 4),
            "f:4\n--------------------\n   2 |\n   3 |     ENV A=b\n   4 | >>> RUN <<E cat \\\n   5 | >>>   x\n   6 | >>> yz\n   \
             7 | >>> E\n   8 |     CMD c\n--------------------\n"
        );
        assert!(excerpt("f", b"RUN\x1b[0m x", 1).contains(">>> RUN [0m x"));
        assert_eq!(excerpt("f", text, 0), "");
        assert_eq!(excerpt("f", text, 99), "");
        assert_eq!(excerpt("f", b"", 1), "");
    }
}
