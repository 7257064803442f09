//! The stack of steps, and the members, which are sums of what the steps add.

use std::collections::HashSet;

use indexmap::IndexMap;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, value::RawValue};

use crate::{Document, Error, Member, Step, Steps, sum, table};

/// Steps that were taken off the stack of a document, as the text that was read.
#[derive(Debug)]
pub struct SplitOff(Vec<Box<RawValue>>);

/// A step of a document that is not parsed yet.
#[derive(Debug, Clone, Copy)]
pub struct StepText<'a> {
    /// The index of the step in the document.
    pub at: usize,
    text: &'a RawValue,
}

impl StepText<'_> {
    /// Parses the step.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it cannot be read.
    pub fn step(self) -> Result<Step, Error> {
        serde_json::from_str(self.text.get()).map_err(malformed)
    }
}

/// The part of a step that matters here: all but its operations.
#[derive(Deserialize)]
struct Outline {
    tool: String,
    #[serde(default, deserialize_with = "lenient")]
    adds: Map<String, Value>,
}

/// Reads `adds`. In the step of another maker it may be something other than an object. Such a step adds
/// nothing, and must not keep Stave's own steps from being undone.
fn lenient<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Map<String, Value>, D::Error> {
    let text = Box::<RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(text.get()).unwrap_or_default())
}

/// What the steps add to the members with these names, in the order of the steps. Walks over the steps once
/// for all names.
fn added<'a>(
    steps: impl Iterator<Item = &'a Outline>,
    names: &HashSet<&str>,
) -> IndexMap<&'a str, Vec<&'a Value>> {
    let mut added: IndexMap<&str, Vec<&Value>> = IndexMap::new();
    for (name, value) in steps.flat_map(|step| &step.adds).filter(|(name, _)| names.contains(name.as_str())) {
        added.entry(name).or_default().push(value);
    }
    added
}

impl Document {
    /// The stack of steps. Empty if the document has none.
    ///
    /// # Errors
    /// [`Error::Malformed`] if `steps` is not a list of steps.
    pub fn steps(&self) -> Result<Vec<Step>, Error> {
        self.step_list()
    }

    /// The names of the steps' tools, in order.
    ///
    /// # Errors
    /// [`Error::Malformed`] if `steps` is not a list of steps.
    pub fn tools(&self) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Step {
            tool: String,
        }
        Ok(self.step_list::<Step>()?.into_iter().map(|step| step.tool).collect())
    }

    /// The last step of a tool, with its index. Steps of other tools are not parsed.
    ///
    /// # Errors
    /// [`Error::Malformed`] if `steps` is not a list, or a step of this tool cannot be read.
    pub fn last_step_of(&self, tool: &str) -> Result<Option<(usize, Step)>, Error> {
        self.last_step(tool, |_| true)
    }

    /// All steps of a tool, each with its index. Steps of other tools are not parsed.
    ///
    /// # Errors
    /// [`Error::Malformed`] if `steps` is not a list, or a step of this tool cannot be read.
    pub fn steps_of(&self, tool: &str) -> Result<Vec<(usize, Step)>, Error> {
        self.texts_of(tool)?.into_iter().map(|text| Ok((text.at, text.step()?))).collect()
    }

    /// As [`Document::steps_of`], but parses no step.
    ///
    /// # Errors
    /// [`Error::Malformed`] if `steps` is not a list of steps.
    pub fn texts_of(&self, tool: &str) -> Result<Vec<StepText<'_>>, Error> {
        let texts: Vec<&RawValue> = self.step_list()?;
        let tools = self.tools()?;
        let own = tools.iter().zip(texts).enumerate().filter(|(_, (name, _))| *name == tool);
        Ok(own.map(|(at, (_, text))| StepText { at, text }).collect())
    }

    /// Whether both documents have the same text.
    pub fn is_same_text(&self, other: &Self) -> bool {
        let (own, others) = (&self.members.0, &other.members.0);
        let mut pairs = own.iter().zip(others);
        own.len() == others.len()
            && pairs.all(|((name, text), (other, others))| name == other && text.get() == others.get())
    }

    /// The index of the last step that is equal to `step`.
    ///
    /// # Errors
    /// [`Error::Malformed`] if `steps` is not a list, or a step of this tool cannot be read.
    pub fn position_of(&self, step: &Step) -> Result<Option<usize>, Error> {
        Ok(self.last_step(&step.tool, |other| other == step)?.map(|(at, _)| at))
    }

    fn last_step(&self, tool: &str, is_it: impl Fn(&Step) -> bool) -> Result<Option<(usize, Step)>, Error> {
        for text in self.texts_of(tool)?.into_iter().rev() {
            let step = text.step()?;
            if is_it(&step) {
                return Ok(Some((text.at, step)));
            }
        }
        Ok(None)
    }

    fn step_list<'a, S: Deserialize<'a>>(&'a self) -> Result<Vec<S>, Error> {
        let Some(steps) = self.raw(Steps::NAME) else { return Ok(Vec::new()) };
        serde_json::from_str(steps.get()).map_err(malformed)
    }

    /// Whether both documents have the same steps. The pid and start time of a process are not compared,
    /// because they change when it is started again.
    ///
    /// # Errors
    /// [`Error::Malformed`] if `steps` is not a list of steps.
    pub fn has_steps_of(&self, other: &Self) -> Result<bool, Error> {
        let texts = self.raw(Steps::NAME).zip(other.raw(Steps::NAME));
        // The texts are nearly always equal. Then nothing needs to be parsed.
        let same_text = texts.is_some_and(|(one, other)| one.get() == other.get());
        let steps = |document: &Self| -> Result<Vec<Step>, Error> {
            let mut steps = document.steps()?;
            steps.iter_mut().flat_map(|step| &mut step.operations).for_each(forget_identity);
            Ok(steps)
        };
        Ok(same_text || steps(self)? == steps(other)?)
    }

    /// Pushes a step on the stack, and returns its index.
    ///
    /// # Errors
    /// [`Error::Malformed`] if `steps` is not a list.
    pub fn push_step<O: Serialize>(&mut self, step: &Step<O>) -> Result<usize, Error> {
        self.edit_steps(|steps| {
            steps.push(serde_json::value::to_raw_value(step)?);
            Ok(steps.len() - 1)
        })
    }

    /// Replaces the step at the index `at`.
    ///
    /// # Errors
    /// [`Error::Malformed`] if `steps` is not a list.
    ///
    /// # Panics
    /// If there is no step at `at`.
    pub fn replace_step<O: Serialize>(&mut self, at: usize, step: &Step<O>) -> Result<(), Error> {
        self.edit_steps(|steps| {
            steps[at] = serde_json::value::to_raw_value(step)?;
            Ok(())
        })
    }

    /// Adds `added` to the member `name`.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the member cannot be read.
    pub fn add(&mut self, name: &str, added: &Value) -> Result<(), Error> {
        let sum = match self.raw(name) {
            Some(current) => sum::add(current, added),
            None => serde_json::value::to_raw_value(added),
        };
        // An error can only name members of the contract.
        let known = table::row(name).map_or("adds", |row| row.name);
        self.set_raw(name, sum.map_err(|source| Error::Malformed { name: known, source })?);
        Ok(())
    }

    /// Removes the step at the index `at`, and what it added to members.
    ///
    /// # Errors
    /// [`Error::Malformed`] if `steps` is not a list.
    ///
    /// # Panics
    /// If there is no step at `at`.
    pub fn remove_step(&mut self, at: usize) -> Result<(), Error> {
        self.remove_steps(&[at])
    }

    /// Removes the steps at these indices, and what they added to members. Takes hardly longer than removing
    /// one.
    ///
    /// # Errors
    /// [`Error::Malformed`] if `steps` is not a list.
    ///
    /// # Panics
    /// If there is no step at one of the indices.
    pub fn remove_steps(&mut self, gone: &[usize]) -> Result<(), Error> {
        let gone: HashSet<usize> = gone.iter().copied().collect();
        if gone.is_empty() {
            return Ok(());
        }
        let all: Vec<Outline> = self.step_list()?;
        self.edit_steps(|steps| {
            let mut at = 0..;
            steps.retain(|_| at.next().is_none_or(|at| !gone.contains(&at)));
            Ok(())
        })?;
        self.take_out(&gone, &all).map_err(malformed)
    }

    /// Removes from the members what the steps in `gone` added. A member that no remaining step adds to is
    /// removed wholly. It stays if a remaining step of a version before 0.2 may have added to it, because
    /// such steps do not say what they add.
    fn take_out(&mut self, gone: &HashSet<usize>, all: &[Outline]) -> serde_json::Result<()> {
        let others = || all.iter().enumerate().filter(|(at, _)| !gone.contains(at)).map(|(_, step)| step);
        let silent: HashSet<&str> = others()
            .filter(|step| step.adds.is_empty() && table::tools().any(|tool| tool == step.tool))
            .map(|step| step.tool.as_str())
            .collect();
        let names: HashSet<&str> =
            gone.iter().flat_map(|at| all[*at].adds.keys()).map(String::as_str).collect();
        let (every, rest) = (added(all.iter(), &names), added(others(), &names));
        let mut empty = HashSet::new();
        for (name, every) in every {
            let Some(current) = self.raw(name) else { continue };
            let after = rest.get(name).and_then(|rest| sum::of(rest.iter().copied()));
            let left = match after.is_none() && !silent.iter().any(|tool| table::makes(tool, name)) {
                true => None,
                false => match sum::of(every) {
                    Some(before) => sum::change(current, &before, after.as_ref())?,
                    None => continue,
                },
            };
            match left {
                Some(left) => self.set_raw(name, left),
                None => drop(empty.insert(name)),
            }
        }
        self.members.0.retain(|name, _| !empty.contains(name.as_str()));
        Ok(())
    }

    /// Restores a member that is missing from what the steps add to it.
    ///
    /// # Errors
    /// [`Error::Malformed`] if `steps` is not a list.
    pub fn complete(&mut self, name: &str) -> Result<(), Error> {
        self.complete_all(&HashSet::from([name]))
    }

    fn complete_all(&mut self, names: &HashSet<&str>) -> Result<(), Error> {
        let missing: HashSet<&str> = names.iter().copied().filter(|name| self.raw(name).is_none()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let all: Vec<Outline> = self.step_list()?;
        for (name, values) in added(all.iter(), &missing) {
            if let Some(sum) = sum::of(values) {
                self.set_raw(name, serde_json::value::to_raw_value(&sum).map_err(malformed)?);
            }
        }
        Ok(())
    }

    /// Takes the steps from the index `at` onwards off the stack. Members do not change.
    ///
    /// # Errors
    /// [`Error::Malformed`] if `steps` is not a list.
    pub fn split_off_steps(&mut self, at: usize) -> Result<SplitOff, Error> {
        self.edit_steps(|steps| Ok(SplitOff(steps.split_off(at.min(steps.len())))))
    }

    /// Puts steps back on top of the stack. Restores members that are missing and that these steps add to.
    ///
    /// # Errors
    /// [`Error::Malformed`] if `steps` is not a list.
    pub fn append_steps(&mut self, above: SplitOff) -> Result<(), Error> {
        let mut names = Map::new();
        for step in &above.0 {
            names.extend(serde_json::from_str::<Outline>(step.get()).map_err(malformed)?.adds);
        }
        self.edit_steps(|steps| {
            steps.extend(above.0);
            Ok(())
        })?;
        self.complete_all(&names.keys().map(String::as_str).collect())
    }

    /// Edits the list of steps. Steps that do not change keep their text: a step of another tool may have
    /// members that [`Step`] does not know.
    fn edit_steps<T>(
        &mut self,
        edit: impl FnOnce(&mut Vec<Box<RawValue>>) -> serde_json::Result<T>,
    ) -> Result<T, Error> {
        let mut steps = self.step_list()?;
        let result = edit(&mut steps).map_err(malformed)?;
        let edited = serde_json::value::to_raw_value(&steps).map_err(malformed)?;
        self.set_raw(Steps::NAME, edited);
        Ok(result)
    }
}

/// Removes pid and start time from an operation that starts a process. They differ each time.
fn forget_identity(operation: &mut Value) {
    if operation["op"] == "process-start"
        && let Some(operation) = operation.as_object_mut()
    {
        ["pid", "startTime"].into_iter().for_each(|key| drop(operation.remove(key)));
    }
}

pub(crate) fn malformed(source: serde_json::Error) -> Error {
    Error::Malformed { name: Steps::NAME, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document(steps: &[Value], members: &Value) -> Document {
        let mut document = json!({"stave": 1, "steps": steps});
        document.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        Document::parse(document.to_string().as_bytes()).unwrap()
    }

    fn step(tool: &str, adds: &Value) -> Value {
        json!({"tool": tool, "version": "1", "state": "done", "operations": [], "adds": adds})
    }

    fn member(document: &Document, name: &str) -> Value {
        document.raw(name).map_or(Value::Null, |text| serde_json::from_str(text.get()).unwrap())
    }

    #[test]
    fn what_stays_above_is_not_forgotten() {
        let steps = [step("portmap", &json!({"ports": ["a"]})), step("portmap", &json!({"ports": ["b"]}))];
        let mut document = document(&steps, &json!({"ports": ["a", "b"]}));
        // As unwind does when the upper step could not be undone.
        let above = document.split_off_steps(1).unwrap();
        document.remove_step(0).unwrap();
        document.append_steps(above).unwrap();
        assert_eq!(member(&document, "ports"), json!(["b"]));
    }

    #[test]
    fn steps_that_do_not_tell_keep_what_they_may_have_added() {
        let mut old = step("portmap", &json!({}));
        old.as_object_mut().unwrap().remove("adds");
        let steps = [old, step("portmap", &json!({"ports": ["b"]}))];
        let mut mixed = document(&steps, &json!({"ports": ["a", "b"]}));
        mixed.remove_step(1).unwrap();
        assert_eq!(member(&mixed, "ports"), json!(["a"]));
    }

    #[test]
    fn many_at_once_go_as_one_by_one() {
        let steps: Vec<Value> = (0..6)
            .map(|n| {
                step(["portmap", "theirs"][n % 2], &json!({"ports": [n % 4], "o": {format!("k{n}"): n}}))
            })
            .collect();
        let members = json!({"ports": [0, "by hand", 1, 2, 3, 0, 1],
            "o": {"k0": 0, "k1": 1, "k2": 2, "k3": 3, "k4": 4, "k5": 5, "own": 1}});
        for gone in [&[5, 4][..], &[4, 2, 0], &[5, 0], &[5, 4, 3, 2, 1, 0], &[]] {
            let (mut one, mut other) = (document(&steps, &members), document(&steps, &members));
            gone.iter().for_each(|at| one.remove_step(*at).unwrap());
            other.remove_steps(gone).unwrap();
            assert_eq!(one.to_line(), other.to_line(), "{gone:?}");
        }
    }

    #[test]
    fn steps_of_other_makers_are_no_obstacle() {
        let odd = [
            step("theirs", &json!(7)),
            step("theirs", &json!(null)),
            step("theirs", &json!({"mine": {"a": 1}})),
        ];
        let steps = [&odd[..], &[step("portmap", &json!({"ports": [1]}))]].concat();
        let mut document = document(&steps, &json!({"ports": [1], "mine": {"a": 1, "b": 2}}));
        document.remove_step(3).unwrap();
        assert_eq!(member(&document, "ports"), Value::Null);
        document.remove_step(2).unwrap();
        assert_eq!(member(&document, "mine"), Value::Null);
        assert_eq!(document.tools().unwrap(), ["theirs", "theirs"]);
    }

    /// So many that the tests would take minutes if the time grew with the square.
    const MANY: usize = 50_000;

    #[test]
    fn many_members_take_no_longer_each() {
        let members: Map<String, Value> = (0..MANY).map(|n| (format!("m{n}"), json!(n))).collect();
        let steps = [step("theirs", &json!(members)), step("portmap", &json!({"ports": members}))];
        let mut all = members.clone();
        all.insert("ports".to_owned(), json!(members));
        let mut document = document(&steps, &json!(all));
        assert_eq!(Document::parse(document.to_line().as_bytes()).unwrap().to_line(), document.to_line());
        assert!((0..MANY).all(|n| document.raw(&format!("m{n}")).is_some()));
        document.add("ports", &json!(members)).unwrap();
        let above = document.split_off_steps(1).unwrap();
        document.remove_step(0).unwrap();
        assert!(document.raw("m7").is_none());
        document.append_steps(above).unwrap();
        document.set_raw("ports", serde_json::value::to_raw_value(&json!({"by hand": 1})).unwrap());
        document.remove_step(0).unwrap();
        assert!(document.steps().unwrap().is_empty());
    }

    #[test]
    fn many_steps_take_no_longer_each() {
        let ports: Vec<Value> = (0..MANY).map(|n| json!({"hostPort": n, "protocol": "tcp"})).collect();
        let steps: Vec<Value> = ports.iter().map(|port| step("portmap", &json!({"ports": [port]}))).collect();
        // Somebody has added a key to each element, so that none of them is as it was made.
        let named: Vec<Value> =
            (0..MANY).map(|n| json!({"hostPort": n, "protocol": "tcp", "name": "x"})).collect();
        for current in [&ports, &named] {
            let mut document = document(&steps, &json!({"ports": current}));
            document.remove_step(0).unwrap();
            assert_eq!(member(&document, "ports").as_array().unwrap().len(), MANY - 1);
            let above = document.split_off_steps(MANY / 2).unwrap();
            document.append_steps(above).unwrap();
            let (at, last) = document.last_step_of("portmap").unwrap().unwrap();
            assert_eq!((at, document.position_of(&last).unwrap()), (MANY - 2, Some(MANY - 2)));
            document.remove_steps(&(1..MANY - 1).collect::<Vec<_>>()).unwrap();
            assert_eq!(member(&document, "ports").as_array().unwrap().len(), 1);
        }
        // One step added all of them.
        let steps = [step("portmap", &json!({"ports": ports})), step("portmap", &json!({"ports": [1]}))];
        for current in [&ports, &named] {
            let all = [&current[..], &[json!(1)]].concat();
            let mut document = document(&steps, &json!({"ports": all}));
            document.remove_step(0).unwrap();
            assert_eq!(member(&document, "ports"), json!([1]));
        }
    }
}
