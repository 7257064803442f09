//! Build arguments (ARG): their values, and the instructions that can see them.

use std::{cell::RefCell, collections::BTreeMap, collections::BTreeSet};

use oci::Platform;
use serde::{Deserialize, Serialize};

use crate::{
    config::Config,
    dockerfile::{
        Instruction, Statement,
        expand::{ExpandError, Expander, LONGEST},
        instruction::Argument,
    },
};

/// Arguments that a RUN sees without an ARG. They are neither in the history nor in the cache key (reference,
/// "Predefined ARGs").
const PREDEFINED: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

// The build arguments for the builder itself (reference, "BuildKit built-in build args").

/// The namespace of cache mounts.
pub(crate) const CACHE_NAMESPACE: &str = "BUILDKIT_CACHE_MOUNT_NS";
/// The host name of RUN.
pub(crate) const HOSTNAME: &str = "BUILDKIT_SANDBOX_HOSTNAME";
/// Whether the image contains the results of its steps, as with `--cache-to type=inline`.
pub const INLINE_CACHE: &str = "BUILDKIT_INLINE_CACHE";
/// Whether `.git` stays in a git context.
pub(crate) const KEEP_GIT: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";
/// The checks, instead of `# check=` of the Dockerfile.
pub(crate) const CHECK: &str = "BUILDKIT_DOCKERFILE_CHECK";
/// All that are carried out.
const BUILT_IN: [&str; 5] = [CACHE_NAMESPACE, HOSTNAME, INLINE_CACHE, KEEP_GIT, CHECK];

/// The values of `--build-arg`, and the ARGs before the first FROM.
#[derive(Debug, Default)]
pub struct Global {
    given: BTreeMap<String, String>,
    platform: BTreeMap<String, String>,
    declared: BTreeMap<String, String>,
    used: RefCell<BTreeSet<String>>,
    target: Option<Platform>,
}

impl Global {
    /// Evaluates a file's global ARGs with the given values and `--platform`.
    ///
    /// # Errors
    /// When a default cannot be expanded: the number of its line, and the cause.
    pub fn new(
        given: BTreeMap<String, String>,
        target_platform: Option<&Platform>,
        statements: &[Statement],
        escape: char,
        target: &str,
    ) -> Result<Self, (usize, ExpandError)> {
        let host = Platform::host();
        let mut platform = BTreeMap::from([("TARGETSTAGE".to_owned(), target.to_owned())]);
        for (side, own) in [("BUILD", &host), ("TARGET", target_platform.unwrap_or(&host))] {
            platform.insert(format!("{side}PLATFORM"), own.to_string());
            platform.insert(format!("{side}OS"), own.os.clone());
            platform.insert(format!("{side}OSVERSION"), String::new());
            platform.insert(format!("{side}ARCH"), own.architecture.clone());
            platform.insert(format!("{side}VARIANT"), own.variant.clone().unwrap_or_default());
        }
        // Given values override the predefined ones, also in FROM.
        let mut used = BTreeSet::new();
        for (name, value) in &mut platform {
            if let Some(own) = given.get(name) {
                used.insert(name.clone());
                value.clone_from(own);
            }
        }
        let used = RefCell::new(used);
        let mut global = Self { given, platform, used, target: target_platform.cloned(), ..Self::default() };
        for statement in statements {
            let Instruction::Arg(arguments) = &statement.instruction else { continue };
            for argument in arguments {
                // The default counts only if no value is given: it may be an error (`${name:?message}`).
                let value = match global.given(&argument.name) {
                    None => {
                        let lookup = |name: &str| global.variable(name);
                        let expander = Expander::new(escape, &lookup);
                        let default = argument.default.as_deref().map(|text| expander.word(text));
                        default.transpose().map_err(|error| (statement.line, error))?
                    }
                    given => given,
                };
                if let Some(value) = value {
                    global.declared.insert(argument.name.clone(), value);
                    let size = global.declared.values().map(String::len).sum::<usize>();
                    if size > LONGEST {
                        return Err((statement.line, ExpandError::TooLong));
                    }
                }
            }
        }
        Ok(global)
    }

    fn given(&self, name: &str) -> Option<String> {
        let value = self.given.get(name)?;
        self.used.borrow_mut().insert(name.to_owned());
        Some(value.clone())
    }

    /// As [`Global::new`], but without the values of `--build-arg`.
    ///
    /// # Errors
    /// As [`Global::new`].
    pub fn without_given(
        &self,
        statements: &[Statement],
        escape: char,
    ) -> Result<Self, (usize, ExpandError)> {
        let target = self.platform.get("TARGETSTAGE").map_or("", String::as_str);
        Self::new(BTreeMap::new(), self.target.as_ref(), statements, escape, target)
    }

    /// Replaces the value of a variable; without a value, as if it had none.
    pub fn replace(&mut self, name: &str, value: Option<String>) {
        let is_declared = self.declared.remove(name).is_some();
        self.given.remove(name);
        if let Some(value) = value {
            if is_declared {
                self.declared.insert(name.to_owned(), value.clone());
            }
            self.given.insert(name.to_owned(), value);
        }
    }

    /// The names of the variables that FROM can use.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.declared.keys().chain(self.platform.keys()).cloned()
    }

    /// A value of `--build-arg`. This does not count as a use.
    pub fn given_value(&self, name: &str) -> Option<String> {
        self.given.get(name).cloned()
    }

    /// The platform to build for, if `--platform` names one.
    pub fn target(&self) -> Option<&Platform> {
        self.target.as_ref()
    }

    /// The value of a variable in FROM.
    pub fn variable(&self, name: &str) -> Option<String> {
        self.declared.get(name).or_else(|| self.platform.get(name)).cloned()
    }

    /// The names of given values that an ARG used.
    pub fn used(&self) -> Vec<String> {
        self.used.borrow().iter().cloned().collect()
    }

    /// Marks given values as used.
    pub fn mark(&self, names: &[String]) {
        self.used.borrow_mut().extend(names.iter().cloned());
    }

    /// The names of given values that no ARG used.
    pub fn unused(&self) -> Vec<&str> {
        let used = self.used.borrow();
        self.given
            .keys()
            .map(String::as_str)
            .filter(|name| {
                !used.contains(*name)
                    && !is_predefined(name)
                    && *name != "SOURCE_DATE_EPOCH"
                    && !BUILT_IN.contains(name)
            })
            .collect()
    }

    /// The given proxies that are not empty, each with its name in upper and in lower case.
    pub fn proxies(&self) -> Vec<(String, String)> {
        let given = self.given.iter().filter(|(name, value)| is_predefined(name) && !value.is_empty());
        given
            .flat_map(|(name, value)| {
                [(name.to_ascii_uppercase(), value.clone()), (name.to_ascii_lowercase(), value.clone())]
            })
            .collect()
    }
}

fn is_predefined(name: &str) -> bool {
    PREDEFINED.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// The ARGs of one stage, up to the current instruction.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Local {
    values: Vec<(String, String)>,
    /// The names of all ARGs, in the order of their first declarations.
    names: Vec<String>,
}

impl Local {
    /// Evaluates an ARG instruction. Returns its text for the history.
    ///
    /// # Errors
    /// When a default cannot be expanded.
    pub fn declare(
        &mut self,
        arguments: &[Argument],
        global: &Global,
        config: &Config,
        escape: char,
    ) -> Result<String, ExpandError> {
        let mut text = String::from("ARG");
        for argument in arguments {
            let value = match (global.given(&argument.name), &argument.default) {
                (Some(given), _) => Some(given),
                (None, Some(default)) => {
                    let lookup = |name: &str| self.variable(name, config);
                    Some(Expander::new(escape, &lookup).word(default)?)
                }
                (None, None) => global.variable(&argument.name),
            };
            text.push_str(&format!(" {}", argument.name));
            if !self.names.contains(&argument.name) {
                self.names.push(argument.name.clone());
            }
            if let Some(value) = value {
                text.push_str(&format!("={value}"));
                self.values.retain(|(name, _)| *name != argument.name);
                self.values.push((argument.name.clone(), value));
            }
        }
        Ok(text)
    }

    /// Records an ENV. From here on it overrides an ARG of the same name (reference, "Using ARG variables").
    /// A later ARG overrides the ENV again.
    pub fn hide(&mut self, name: &str) {
        self.values.retain(|(own, _)| own != name);
    }

    /// The value of a variable for instructions. Of an ENV and an ARG, the later one counts.
    pub fn variable(&self, name: &str, config: &Config) -> Option<String> {
        let own = self.values.iter().find(|(own, _)| own == name).map(|(_, value)| value.clone());
        own.or_else(|| config.variable(name).map(str::to_owned))
    }

    /// The ARGs with the values that a RUN sees, for the history: also those of an ENV that hides an ARG, and empty
    /// ones. In the order in which they were declared, as in BuildKit.
    pub fn declared(&self, config: &Config) -> Vec<(String, String)> {
        let value = |name: &String| self.variable(name, config).unwrap_or_default();
        self.names.iter().map(|name| (name.clone(), value(name))).collect()
    }

    /// The variables that a RUN sees besides the image's environment, sorted.
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut seen = self.values.clone();
        seen.sort();
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::parse;

    fn given(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn arguments_of_platforms_can_be_given() {
        let target = "linux/arm/v7".parse().unwrap();
        let given = given(&[("TARGETARCH", "riscv64"), ("BUILDOSVERSION", "7")]);
        let global = Global::new(given, Some(&target), &[], '\\', "a").unwrap();
        for (name, value) in [
            ("TARGETARCH", "riscv64"),
            ("TARGETVARIANT", "v7"),
            ("TARGETPLATFORM", "linux/arm/v7"),
            ("TARGETOSVERSION", ""),
            ("BUILDOSVERSION", "7"),
            ("TARGETSTAGE", "a"),
        ] {
            assert_eq!(global.variable(name).as_deref(), Some(value), "{name}");
        }
        assert!(global.unused().is_empty());
    }

    #[test]
    fn a_default_counts_only_if_no_value_is_given() {
        let file = parse(b"ARG A=${A:?none}\nFROM a\n").unwrap();
        let global = |given| Global::new(given, None, &file.arguments, '\\', "a");
        assert_eq!(global(given(&[("A", "1")])).unwrap().variable("A").as_deref(), Some("1"));
        let (line, error) = global(given(&[])).unwrap_err();
        assert_eq!((line, error.to_string()), (1, "A: none".to_owned()));
    }

    #[test]
    fn scopes() {
        let file =
            parse(b"ARG V=1\nARG W=${V}2\nARG N\nFROM a\nARG V\nARG L=$V-x\nARG W=own\nARG N\nARG E=arg\n")
                .unwrap();
        let global = Global::new(
            given(&[
                ("W", "given"),
                ("http_proxy", "p"),
                ("Z", "z"),
                (HOSTNAME, "h"),
                ("BUILDKIT_SYNTAX", "s"),
            ]),
            None,
            &file.arguments,
            '\\',
            "a",
        )
        .unwrap();
        assert_eq!(global.variable("V").as_deref(), Some("1"));
        assert_eq!(global.variable("W").as_deref(), Some("given"));
        assert_eq!(global.variable("N"), None);
        assert_eq!(global.variable("TARGETOS").as_deref(), Some("linux"));
        let mut local = Local::default();
        let mut config = Config::default();
        config.set_variable("E", "env");
        assert_eq!(
            local.variable("V", &config),
            None,
            "a global ARG is not seen in a stage that does not ask for it"
        );
        let mut texts = Vec::new();
        for statement in &file.stages[0].statements {
            let Instruction::Arg(arguments) = &statement.instruction else { panic!() };
            texts.push(local.declare(arguments, &global, &config, '\\').unwrap());
        }
        assert_eq!(texts, ["ARG V=1", "ARG L=1-x", "ARG W=given", "ARG N", "ARG E=arg"]);
        assert_eq!(local.variable("E", &config).as_deref(), Some("arg"), "the ARG came after the ENV");
        let environment = |local: &Local| -> Vec<_> {
            local.environment().into_iter().map(|(name, value)| format!("{name}={value}")).collect()
        };
        assert_eq!(environment(&local), ["E=arg", "L=1-x", "V=1", "W=given"]);
        local.hide("E");
        assert_eq!(local.variable("E", &config).as_deref(), Some("env"), "an ENV after it");
        assert_eq!(environment(&local), ["L=1-x", "V=1", "W=given"]);
        let declared: Vec<_> =
            local.declared(&config).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(declared, ["V=1", "L=1-x", "W=given", "N=", "E=env"]);
        assert_eq!(global.unused(), ["BUILDKIT_SYNTAX", "Z"]);
        assert_eq!(global.proxies().len(), 2);
        let none = Global::new(given(&[("http_proxy", "")]), None, &[], '\\', "a").unwrap();
        assert_eq!(none.proxies(), []);
        assert_eq!(global.proxies(), [("HTTP_PROXY".into(), "p".into()), ("http_proxy".into(), "p".into())]);
    }
}
