//! The value of `--chmod`: octal, or symbolic as in chmod(1).

/// A mode to set, or a change of the existing mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chmod {
    /// An octal mode, `755`.
    Octal(u32),
    /// A symbolic mode, `u=rwX,go=rX`.
    Symbolic(Vec<Change>),
}

/// One change of a symbolic mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The classes to change: user (4), group (2) and others (1), added up.
    who: u32,
    operator: char,
    /// The permission bits of one class: read (4), write (2) and execute (1), added up.
    bits: u32,
    /// `X`: execute, if the file is a directory or anybody may execute it.
    conditional_execute: bool,
    set_id: bool,
    sticky: bool,
    /// `g=u`: how far to shift the mode to get the bits of the class that is copied.
    copy_from: Option<u32>,
}

/// The text is not a mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid chmod parameter: '{0}'. it should be octal string and between 0 and 07777")]
pub struct ChmodError(String);

impl Chmod {
    /// Parses the value of `--chmod`.
    ///
    /// # Errors
    /// [`ChmodError`].
    pub fn parse(text: &str) -> Result<Self, ChmodError> {
        let invalid = || ChmodError(text.to_owned());
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).map_err(|_| invalid())?;
            return if mode <= 0o7777 { Ok(Self::Octal(mode)) } else { Err(invalid()) };
        }
        let mut changes = Vec::new();
        for clause in text.split(',') {
            clause_changes(clause, &mut changes).ok_or_else(invalid)?;
        }
        Ok(Self::Symbolic(changes))
    }

    /// The new mode of a file whose mode is `old`. Only permission bits, set-id bits and the sticky bit.
    pub fn apply(&self, old: u32, directory: bool) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(changes) => {
                changes.iter().fold(old & 0o7777, |mode, change| change.apply(mode, directory))
            }
        }
    }
}

fn clause_changes(clause: &str, changes: &mut Vec<Change>) -> Option<()> {
    let end = clause.find(['+', '-', '='])?;
    let mut who = 0;
    for c in clause[..end].chars() {
        who |= match c {
            'u' => 4,
            'g' => 2,
            'o' => 1,
            'a' => 7,
            _ => return None,
        };
    }
    // Without a class, all classes are meant. There is no umask in a build.
    let who = if who == 0 { 7 } else { who };
    let mut rest = clause[end..].chars().peekable();
    while let Some(operator) = rest.next() {
        let mut change = Change {
            who,
            operator,
            bits: 0,
            conditional_execute: false,
            set_id: false,
            sticky: false,
            copy_from: None,
        };
        while let Some(c) = rest.next_if(|c| !"+-=".contains(*c)) {
            match c {
                'r' => change.bits |= 4,
                'w' => change.bits |= 2,
                'x' => change.bits |= 1,
                'X' => change.conditional_execute = true,
                's' => change.set_id = true,
                't' => change.sticky = true,
                'u' => change.copy_from = Some(6),
                'g' => change.copy_from = Some(3),
                'o' => change.copy_from = Some(0),
                _ => return None,
            }
        }
        changes.push(change);
    }
    Some(())
}

impl Change {
    fn apply(&self, mode: u32, directory: bool) -> u32 {
        let mut bits = self.bits;
        if self.conditional_execute && (directory || mode & 0o111 != 0) {
            bits |= 1;
        }
        if let Some(shift) = self.copy_from {
            bits |= mode >> shift & 7;
        }
        let mut set = 0;
        let mut touched = 0;
        for (class, shift, set_id) in [(4, 6, 0o4000), (2, 3, 0o2000), (1, 0, 0)] {
            if self.who & class != 0 {
                set |= bits << shift | if self.set_id { set_id } else { 0 };
                touched |= 7 << shift | set_id;
            }
        }
        if self.sticky {
            set |= 0o1000;
        }
        match self.operator {
            '+' => mode | set,
            '-' => mode & !set,
            // Unlike GNU chmod, BuildKit also clears the set-id bits of a directory.
            _ => mode & !touched | set,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        for (text, old, directory, expected) in [
            ("755", 0o644, false, Some(0o755)),
            ("0", 0o644, false, Some(0)),
            ("7777", 0, false, Some(0o7777)),
            ("10000", 0, false, None),
            ("9", 0, false, None),
            ("+x", 0o644, false, Some(0o755)),
            ("a-w", 0o666, false, Some(0o444)),
            ("u=rwX,go=rX", 0o600, false, Some(0o644)),
            ("u=rwX,go=rX", 0o700, false, Some(0o755)),
            ("u=rwX,go=rX", 0o600, true, Some(0o755)),
            ("u=rwX,go=rX", 0o2755, true, Some(0o755)),
            ("g=u", 0o740, false, Some(0o770)),
            ("u+s", 0o755, false, Some(0o4755)),
            ("+t", 0o777, true, Some(0o1777)),
            ("u=r-w+x", 0o777, false, Some(0o577)),
            ("o=", 0o777, false, Some(0o770)),
            ("q+x", 0, false, None),
            ("u", 0, false, None),
            ("", 0, false, None),
            ("u+q", 0, false, None),
        ] {
            assert_eq!(Chmod::parse(text).ok().map(|mode| mode.apply(old, directory)), expected, "{text}");
        }
    }
}
