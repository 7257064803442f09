//! The stack of steps, and the members that are their sums.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, value::RawValue};

use crate::{Document, Error, Member, Step, Steps, sum, table};

/// Steps that were taken off a document's stack, as the text that was read.
#[derive(Debug)]
pub struct SplitOff(Vec<Box<RawValue>>);

/// What a step is read for where its operations do not matter.
#[derive(Deserialize)]
struct Outline {
    tool: String,
    #[serde(default, deserialize_with = "lenient")]
    adds: Map<String, Value>,
}

/// What another maker calls `adds` and is no object adds nothing: it must not keep Stave's own steps from being undone.
fn lenient<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Map<String, Value>, D::Error> {
    let text = Box::<RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(text.get()).unwrap_or_default())
}

impl Document {
    /// The stack of steps; empty if there is none.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn steps(&self) -> Result<Vec<Step>, Error> {
        self.step_list()
    }

    /// The tools of the stack's steps, in order.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn tools(&self) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Step {
            tool: String,
        }
        Ok(self.step_list::<Step>()?.into_iter().map(|step| step.tool).collect())
    }

    /// The last step of a tool, with its index. Steps of others are not parsed.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn last_step_of(&self, tool: &str) -> Result<Option<(usize, Step)>, Error> {
        self.last_step(tool, |_| true)
    }

    /// The index of the last step that is this one.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn position_of(&self, step: &Step) -> Result<Option<usize>, Error> {
        Ok(self.last_step(&step.tool, |other| other == step)?.map(|(at, _)| at))
    }

    fn last_step(&self, tool: &str, is_it: impl Fn(&Step) -> bool) -> Result<Option<(usize, Step)>, Error> {
        let texts: Vec<&RawValue> = self.step_list()?;
        for (at, _) in self.tools()?.iter().enumerate().rev().filter(|(_, name)| *name == tool) {
            let step: Step = serde_json::from_str(texts[at].get()).map_err(malformed)?;
            if is_it(&step) {
                return Ok(Some((at, step)));
            }
        }
        Ok(None)
    }

    fn step_list<'a, S: Deserialize<'a>>(&'a self) -> Result<Vec<S>, Error> {
        let Some(steps) = self.raw(Steps::NAME) else { return Ok(Vec::new()) };
        serde_json::from_str(steps.get()).map_err(malformed)
    }

    /// Whether both have the same stack of steps.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn has_steps_of(&self, other: &Self) -> Result<bool, Error> {
        let texts = self.raw(Steps::NAME).zip(other.raw(Steps::NAME));
        // The text is nearly always the same, and then need not be parsed.
        let same_text = texts.is_some_and(|(one, other)| one.get() == other.get());
        Ok(same_text || self.steps()? == other.steps()?)
    }

    /// Puts a step on top of the stack; returns its index.
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

    /// Adds to a member what a step adds to it.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the member cannot be read.
    pub fn add(&mut self, name: &str, added: &Value) -> Result<(), Error> {
        let sum = match self.raw(name) {
            Some(current) => sum::add(current, added),
            None => serde_json::value::to_raw_value(added),
        };
        // A member of others has no name here.
        let known = table::row(name).map_or("adds", |row| row.name);
        self.set_raw(name, sum.map_err(|source| Error::Malformed { name: known, source })?);
        Ok(())
    }

    /// Takes the step at the index `at` out, and what it added to members.
    ///
    /// # Errors
    /// [`Error::Malformed`] if `steps` is not a list.
    ///
    /// # Panics
    /// If there is no step at `at`.
    pub fn remove_step(&mut self, at: usize) -> Result<(), Error> {
        let all: Vec<Outline> = self.step_list()?;
        self.edit_steps(|steps| {
            steps.remove(at);
            Ok(())
        })?;
        for name in all[at].adds.keys() {
            self.take_out(name, at, &all).map_err(malformed)?;
        }
        Ok(())
    }

    /// Takes out of the member what the step at `at` of all steps added to it. With the last step that adds to it the whole
    /// member goes, unless steps of before version 0.2 may have added to it, which do not tell so.
    fn take_out(&mut self, name: &str, at: usize, all: &[Outline]) -> serde_json::Result<()> {
        let Some(current) = self.raw(name) else { return Ok(()) };
        let others = || all.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, step)| step);
        let after = sum::of(others().filter_map(|step| step.adds.get(name)))?;
        let may_add = |step: &Outline| step.adds.is_empty() && table::makes(&step.tool, name);
        let left = match (&after, others().any(may_add)) {
            (None, false) => None,
            _ => match sum::of(all.iter().filter_map(|step| step.adds.get(name)))? {
                Some(before) => sum::change(current, &before, after.as_ref())?,
                None => return Ok(()),
            },
        };
        match left {
            Some(left) => self.set_raw(name, left),
            None => self.remove(name),
        }
        Ok(())
    }

    /// Makes a member anew where it is missing, and steps add to it.
    ///
    /// # Errors
    /// [`Error::Malformed`] if `steps` is not a list.
    pub fn complete(&mut self, name: &str) -> Result<(), Error> {
        if self.raw(name).is_none() {
            let all: Vec<Outline> = self.step_list()?;
            let sum = sum::of(all.iter().filter_map(|step| step.adds.get(name))).map_err(malformed)?;
            if let Some(sum) = sum {
                self.set_raw(name, serde_json::value::to_raw_value(&sum).map_err(malformed)?);
            }
        }
        Ok(())
    }

    /// Takes the steps from the index `at` on off the stack. Members stay as they are.
    ///
    /// # Errors
    /// [`Error::Malformed`] if `steps` is not a list.
    pub fn split_off_steps(&mut self, at: usize) -> Result<SplitOff, Error> {
        self.edit_steps(|steps| Ok(SplitOff(steps.split_off(at.min(steps.len())))))
    }

    /// Puts them on top of the stack again, and the members that went meanwhile and that they add to.
    ///
    /// # Errors
    /// [`Error::Malformed`] if `steps` is not a list.
    pub fn append_steps(&mut self, above: SplitOff) -> Result<(), Error> {
        let mut names = Vec::new();
        for step in &above.0 {
            names.extend(serde_json::from_str::<Outline>(step.get()).map_err(malformed)?.adds);
        }
        self.edit_steps(|steps| {
            steps.extend(above.0);
            Ok(())
        })?;
        names.iter().try_for_each(|(name, _)| self.complete(name))
    }

    /// Steps that are not changed keep the text that was read: a step of another tool may contain more than [`Step`]
    /// knows.
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
        // As unwind does it, where the upper one could not be undone.
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
}
