//! The flags of an instruction.

use super::suggest::suggest;

/// The flags of one instruction. Known flags are taken out one by one; what remains is unknown.
pub(super) struct Flags {
    left: Vec<(String, Option<String>)>,
    /// The names of the known flags.
    known: Vec<&'static str>,
}

impl Flags {
    pub(super) fn new(flags: Vec<String>) -> Self {
        let split = |flag: String| match flag.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (flag, None),
        };
        Self { left: flags.into_iter().map(split).collect(), known: Vec::new() }
    }

    /// Takes out a flag that may be repeated. Returns all its values.
    pub(super) fn strings(&mut self, name: &'static str) -> Result<Vec<String>, String> {
        self.known.push(name);
        let mut values = Vec::new();
        for (flag, value) in self.left.extract_if(.., |(flag, _)| flag == name) {
            values.push(value.ok_or_else(|| format!("missing a value on flag: {flag}"))?);
        }
        Ok(values)
    }

    /// Takes out a flag that may appear once. Returns its value.
    pub(super) fn string(&mut self, name: &'static str) -> Result<Option<String>, String> {
        let mut values = self.strings(name)?;
        if values.len() > 1 {
            return Err(format!("duplicate flag specified: {name}"));
        }
        Ok(values.pop())
    }

    /// Takes out a flag without a value, or with `true` or `false`. `None` if it is missing.
    pub(super) fn boolean(&mut self, name: &'static str) -> Result<Option<bool>, String> {
        self.known.push(name);
        let found: Vec<_> =
            self.left.extract_if(.., |(flag, _)| flag == name).map(|(_, value)| value).collect();
        match found.as_slice() {
            [] => Ok(None),
            [None] => Ok(Some(true)),
            [Some(value)] => match value.to_ascii_lowercase().as_str() {
                "" => Err(format!("missing a value on flag: {name}")),
                "true" => Ok(Some(true)),
                "false" => Ok(Some(false)),
                _ => Err(format!("expecting boolean value for flag {name}, not: {value}")),
            },
            _ => Err(format!("duplicate flag specified: {name}")),
        }
    }

    /// Fails if a flag is left.
    pub(super) fn finish(self) -> Result<(), String> {
        match self.left.first() {
            None => Ok(()),
            Some((name, _)) => Err(format!("unknown flag: {name}{}", suggest(name, &self.known))),
        }
    }
}
