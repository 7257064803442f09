//! Shows the part of a Dockerfile that an error is about, in BuildKit's form.

use crate::dockerfile;

/// The number of lines to show before and after the instruction.
const AROUND: usize = 2;
/// The largest number of lines of an instruction that are shown.
const MOST: usize = 20;
/// The largest number of characters of a line that are shown.
const WIDTH: usize = 160;

/// Marks the instruction on the line `first`, shows the lines around it, and marks `word` if the line has it.
/// Empty if there is no such line.
pub(crate) fn excerpt(name: &str, text: &[u8], first: usize, word: Option<&str>) -> String {
    let last = dockerfile::last_line(text, first).min(first + MOST);
    let text = String::from_utf8_lossy(text);
    let all: Vec<&str> = text.lines().collect();
    if first == 0 || first > all.len() {
        return String::new();
    }
    let mut word = word.filter(|word| !word.is_empty());
    let rule = "-".repeat(20);
    let mut shown = format!("{name}:{first}\n{rule}\n");
    for (at, line) in all.iter().enumerate().skip(first.saturating_sub(AROUND + 1)) {
        let number = at + 1;
        if number > last + AROUND {
            break;
        }
        let is_marked = (first..=last).contains(&number);
        let mark = if is_marked { ">>>" } else { "   " };
        let line = without_passwords(line);
        let line: String = line.chars().take(WIDTH).map(|c| if c.is_control() { ' ' } else { c }).collect();
        shown.push_str(format!("{number:4} | {mark} {line}").trim_end());
        shown.push('\n');
        if let Some(found) = word.filter(|_| is_marked)
            && let Some(at) = find(&line, found)
        {
            shown.push_str(&format!("     |     {}{}\n", " ".repeat(at), "^".repeat(found.chars().count())));
            word = None;
        }
    }
    shown + &rule + "\n"
}

/// A text without the users and passwords of addresses in it, for progress and history.
pub(crate) fn without_passwords(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        shown.push_str(before);
        shown.push_str("://");
        let is_end = |c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'');
        let authority = &after[..after.find(is_end).unwrap_or(after.len())];
        rest = authority.rfind('@').map_or(after, |at| &after[at + 1..]);
    }
    shown + rest
}

/// The position of a word in a line, in characters. Prefers a position where it is a whole word.
fn find(line: &str, word: &str) -> Option<usize> {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    let is_whole =
        |at: usize| !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part);
    let mut places = line.match_indices(word).map(|(at, _)| at);
    let first = places.next()?;
    let at = std::iter::once(first).chain(places).find(|at| is_whole(*at)).unwrap_or(first);
    Some(line[..at].chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instruction_is_marked() {
        let text = b"FROM a\n\nENV A=b\nRUN <<E cat \\\n  x\nyz\nE\nCMD c\n";
        assert_eq!(
            excerpt("f", text, 4, None),
            "f:4\n--------------------\n   2 |\n   3 |     ENV A=b\n   4 | >>> RUN <<E cat \\\n   5 | >>>   x\n   6 | >>> yz\n   \
             7 | >>> E\n   8 |     CMD c\n--------------------\n"
        );
        assert!(excerpt("f", b"RUN\x1b[0m x", 1, None).contains(">>> RUN [0m x"));
        assert_eq!(excerpt("f", text, 0, None), "");
        assert_eq!(excerpt("f", text, 99, None), "");
        assert_eq!(excerpt("f", b"", 1, None), "");
        let marked = excerpt("f", b"FROM a\nCOPY \\\n  xay a /b", 2, Some("a"));
        assert!(marked.contains("   3 | >>>   xay a /b\n     |           ^\n"), "{marked}");
    }

    #[test]
    fn passwords_are_not_shown() {
        for (text, shown) in [
            ("ADD https://u:p@h/x /y", "ADD https://h/x /y"),
            ("a://b c://d@e:1?f@g \"h://i@j\"", "a://b c://e:1?f@g \"h://j\""),
            ("://@", "://"),
            ("plain@text", "plain@text"),
        ] {
            assert_eq!(without_passwords(text), shown);
        }
        assert!(excerpt("f", b"ADD http://u:p@h/x /", 1, None).contains(">>> ADD http://h/x /"));
    }
}
