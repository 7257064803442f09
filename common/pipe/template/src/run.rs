//! Fills a template in.

use serde_json::Value;

use crate::{
    Error, LONGEST, MOST_STEPS, Result, function,
    node::{Assign, Command, Node, Operand, Pipeline, Template},
    value,
};

/// A field with arguments, as `.Label "name"`: its value. `None` if there is no such field.
pub type Calls<'a> = &'a dyn Fn(&str, &[Value]) -> Option<Value>;

/// What a template is filled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Values.
    Values,
    /// The headings of a table: functions on values pass them on.
    Headings,
}

struct Run<'a> {
    calls: Calls<'a>,
    mode: Mode,
    variables: Vec<(String, Value)>,
    output: String,
    steps: usize,
}

/// Where a list of nodes goes on.
#[derive(PartialEq)]
enum Flow {
    Next,
    Break,
    Continue,
}

impl Template {
    /// The text for `data`.
    ///
    /// # Errors
    /// When a field is missing, a function does not take its arguments, or a limit is reached.
    pub fn fill(&self, data: &Value, mode: Mode, calls: Calls<'_>) -> Result<String> {
        let variables = vec![("$".to_owned(), data.clone())];
        let mut run = Run { calls, mode, variables, output: String::new(), steps: 0 };
        run.list(&self.0, data)?;
        Ok(run.output)
    }
}

impl Run<'_> {
    fn step(&mut self, at: usize) -> Result<()> {
        self.steps += 1;
        match self.steps > MOST_STEPS {
            true => Err(Error::new(at, format!("more than {MOST_STEPS} steps"))),
            false => Ok(()),
        }
    }

    fn write(&mut self, at: usize, text: &str) -> Result<()> {
        if self.output.len() + text.len() > LONGEST {
            return Err(Error::new(at, format!("the text is longer than {LONGEST} bytes")));
        }
        self.output += text;
        Ok(())
    }

    fn list(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow> {
        let known = self.variables.len();
        let mut flow = Flow::Next;
        for node in nodes {
            flow = self.node(node, dot)?;
            if flow != Flow::Next {
                break;
            }
        }
        self.variables.truncate(known);
        Ok(flow)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow> {
        self.step(0)?;
        match node {
            Node::Text(text) => self.write(0, text)?,
            Node::Print(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                self.write(at(pipeline), &value::printed(&value))?;
            }
            Node::Assign(assign) => {
                self.assign(assign, dot)?;
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
            Node::If { is_with, condition, then, otherwise } => {
                let known = self.variables.len();
                let value = self.assign(condition, dot)?;
                let flow = match value::is_true(&value) {
                    true if *is_with => self.list(then, &value),
                    true => self.list(then, dot),
                    false => self.list(otherwise, dot),
                };
                self.variables.truncate(known);
                return flow;
            }
            Node::Range { key, element, over, body, otherwise } => {
                return self.range([key, element], over, (body, otherwise), dot);
            }
        }
        Ok(Flow::Next)
    }

    /// The value of a pipeline, under its name.
    fn assign(&mut self, assign: &Assign, dot: &Value) -> Result<Value> {
        let value = self.pipeline(&assign.value, dot)?;
        if let Some(name) = &assign.name {
            let known = self.variables.iter_mut().rev().find(|(known, _)| known == name);
            match known.filter(|_| !assign.is_new) {
                Some((_, old)) => *old = value.clone(),
                None => self.variables.push((name.clone(), value.clone())),
            }
        }
        Ok(value)
    }

    fn range(
        &mut self,
        names: [&Option<String>; 2],
        over: &Pipeline,
        (body, otherwise): (&[Node], &[Node]),
        dot: &Value,
    ) -> Result<Flow> {
        let value = self.pipeline(over, dot)?;
        let elements: Vec<(Value, Value)> = match value {
            Value::Null => Vec::new(),
            Value::Array(list) => list.into_iter().enumerate().map(|(key, one)| (key.into(), one)).collect(),
            Value::Object(members) => {
                let mut pairs: Vec<_> =
                    members.into_iter().map(|(key, one)| (Value::String(key), one)).collect();
                pairs.sort_by(|a, b| a.0.as_str().cmp(&b.0.as_str()));
                pairs
            }
            Value::Number(count) if count.as_u64().is_some_and(|count| count <= MOST_STEPS as u64) => {
                (0..count.as_u64().unwrap_or(0)).map(|one| (one.into(), one.into())).collect()
            }
            other => {
                return Err(Error::new(at(over), format!("range does not take {}", value::kind(&other))));
            }
        };
        if elements.is_empty() {
            return self.list(otherwise, dot);
        }
        let known = self.variables.len();
        for (key, element) in elements {
            self.step(at(over))?;
            for (name, value) in names.into_iter().zip([&key, &element]) {
                self.variables.extend(name.clone().map(|name| (name, value.clone())));
            }
            let flow = self.list(body, &element)?;
            self.variables.truncate(known);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::Next)
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value> {
        let mut value = None;
        for command in &pipeline.0 {
            value = Some(self.command(command, value, dot)?);
        }
        Ok(value.unwrap_or(Value::Null))
    }

    /// The value of a command. `last` is the value of the command before.
    fn command(&mut self, command: &Command, last: Option<Value>, dot: &Value) -> Result<Value> {
        self.step(command.at)?;
        let Some((first, rest)) = command.words.split_first() else { return Ok(Value::Null) };
        match first {
            Operand::Function(name) if name == "and" || name == "or" => {
                self.lazy(command.at, name == "or", rest, last, dot)
            }
            Operand::Function(name) => {
                let arguments = self.arguments(command.at, rest, last, dot)?;
                if self.mode == Mode::Headings && function::is_of_values(name) {
                    let heading = arguments.into_iter().find(Value::is_string);
                    return Ok(heading.unwrap_or(Value::Null));
                }
                function::call(name, &arguments).map_err(|cause| Error::new(command.at, cause))
            }
            Operand::Field(of, name) if last.is_some() || !rest.is_empty() => {
                let of = self.operand(command.at, of, dot)?;
                let arguments = self.arguments(command.at, rest, last, dot)?;
                let called = of.is_object().then(|| (self.calls)(name, &arguments)).flatten();
                called.ok_or_else(|| Error::new(command.at, format!(".{name} takes no arguments")))
            }
            first => self.operand(command.at, first, dot),
        }
    }

    fn arguments(
        &mut self,
        at: usize,
        words: &[Operand],
        last: Option<Value>,
        dot: &Value,
    ) -> Result<Vec<Value>> {
        let mut values = Vec::new();
        for word in words {
            values.push(self.operand(at, word, dot)?);
        }
        values.extend(last);
        Ok(values)
    }

    /// `and` and `or`: the first value that decides.
    fn lazy(
        &mut self,
        at: usize,
        is_or: bool,
        words: &[Operand],
        last: Option<Value>,
        dot: &Value,
    ) -> Result<Value> {
        let mut value = None;
        for word in words {
            let next = self.operand(at, word, dot)?;
            if value::is_true(&next) == is_or {
                return Ok(next);
            }
            value = Some(next);
        }
        let value = last.or(value);
        value.ok_or_else(|| Error::new(at, "and and or take arguments"))
    }

    fn operand(&mut self, at: usize, operand: &Operand, dot: &Value) -> Result<Value> {
        self.step(at)?;
        match operand {
            Operand::Dot => Ok(dot.clone()),
            Operand::Nil => Ok(Value::Null),
            Operand::Literal(value) => Ok(value.clone()),
            Operand::Function(name) => {
                self.command(&Command { at, words: vec![Operand::Function(name.clone())] }, None, dot)
            }
            Operand::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                found
                    .map(|(_, value)| value.clone())
                    .ok_or_else(|| Error::new(at, format!("undefined variable {name}")))
            }
            Operand::Group(pipeline) => self.pipeline(pipeline, dot),
            Operand::Field(of, name) => match &**of {
                Operand::Dot => field(at, dot, name),
                of => field(at, &self.operand(at, of, dot)?, name),
            },
        }
    }
}

/// Where a pipeline is in the template.
fn at(pipeline: &Pipeline) -> usize {
    pipeline.0.first().map_or(0, |command| command.at)
}

/// A member of a map. Docker's fields start with a capital: a missing one is a mistake. Other keys are names that
/// somebody has given, as those of labels and networks: a missing one has no value.
fn field(at: usize, of: &Value, name: &str) -> Result<Value> {
    let Value::Object(members) = of else {
        return Err(Error::new(at, format!("no field .{name}: it is {}", value::kind(of))));
    };
    match members.get(name) {
        Some(value) => Ok(value.clone()),
        None if name.starts_with(char::is_uppercase) => {
            let known: Vec<_> = members.keys().map(String::as_str).take(40).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Err(Error::new(at, format!("no field .{name}; there are {known}")))
        }
        None => Ok(Value::Null),
    }
}
