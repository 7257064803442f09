//! From words to nodes.

use serde_json::{Number, Value};

use crate::{
    DEEPEST, Error, Result, function,
    lexer::{self, Placed, Token},
    node::{Assign, Command, Node, Operand, Pipeline, Template},
};

struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<Placed>>,
    /// Where the template ends.
    end: usize,
    depth: usize,
    /// In how many `range` we are.
    ranges: usize,
    /// The variables that are known here.
    variables: Vec<String>,
}

/// What ended a list of nodes.
#[derive(PartialEq)]
enum Ended {
    /// The template.
    Text,
    /// `{{end}}`
    End,
    /// `{{else}}`: the rest of the action is still to be read.
    Else,
}

impl std::str::FromStr for Template {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let tokens = lexer::tokens(text)?.into_iter().peekable();
        let variables = vec!["$".to_owned()];
        let mut parser = Parser { tokens, end: text.chars().count(), depth: 0, ranges: 0, variables };
        match parser.list(0)? {
            (nodes, Ended::Text) => Ok(Self(nodes)),
            (_, _) => Err(Error::new(parser.at(), "there is no if, with or range that it belongs to")),
        }
    }
}

impl Parser {
    fn at(&mut self) -> usize {
        self.tokens.peek().map_or(self.end, |(at, _)| *at)
    }

    fn is_next(&mut self, token: &Token) -> bool {
        self.tokens.peek().is_some_and(|(_, next)| next == token)
    }

    fn expect(&mut self, token: &Token, what: &str) -> Result<()> {
        let at = self.at();
        match self.tokens.next() {
            Some((_, next)) if next == *token => Ok(()),
            _ => Err(Error::new(at, format!("expected {what}"))),
        }
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= DEEPEST {
            return Err(Error::new(self.at(), format!("nested deeper than {DEEPEST}")));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// Nodes up to the end of what `open` opens.
    fn list(&mut self, open: usize) -> Result<(Vec<Node>, Ended)> {
        let known = self.variables.len();
        let list = self.nodes(open);
        self.variables.truncate(known);
        list
    }

    fn nodes(&mut self, open: usize) -> Result<(Vec<Node>, Ended)> {
        let mut nodes = Vec::new();
        loop {
            match self.tokens.next() {
                None if self.depth == 0 => return Ok((nodes, Ended::Text)),
                None => return Err(Error::new(open, "it has no {{end}}")),
                Some((_, Token::Text(text))) => nodes.push(Node::Text(text)),
                Some((at, _)) => {
                    let keyword = match self.tokens.peek() {
                        Some((_, Token::Name(name))) => name.clone(),
                        _ => String::new(),
                    };
                    match keyword.as_str() {
                        "end" => {
                            self.tokens.next();
                            self.expect(&Token::Close, "}} after end")?;
                            return Ok((nodes, Ended::End));
                        }
                        "else" => {
                            self.tokens.next();
                            return Ok((nodes, Ended::Else));
                        }
                        keyword => nodes.push(self.node(at, keyword)?),
                    }
                }
            }
        }
    }

    /// The node of an action.
    fn node(&mut self, at: usize, keyword: &str) -> Result<Node> {
        match keyword {
            "if" | "with" | "range" => {
                self.tokens.next();
                let known = self.variables.len();
                let is_with = keyword == "with";
                let node = self.deeper(|parser| match keyword {
                    "range" => parser.range(at),
                    _ => parser.condition(at, is_with),
                });
                self.variables.truncate(known);
                node
            }
            "break" | "continue" => {
                self.tokens.next();
                if self.ranges == 0 {
                    return Err(Error::new(at, format!("{keyword} is outside of range")));
                }
                self.expect(&Token::Close, "}}")?;
                Ok(if keyword == "break" { Node::Break } else { Node::Continue })
            }
            "define" | "template" | "block" => Err(Error::new(at, format!("{keyword} is not supported"))),
            _ => {
                let assign = self.assign()?;
                self.expect(&Token::Close, "}}")?;
                Ok(match assign.name {
                    Some(_) => Node::Assign(assign),
                    None => Node::Print(assign.value),
                })
            }
        }
    }

    /// `if` or `with`, behind the keyword.
    fn condition(&mut self, at: usize, is_with: bool) -> Result<Node> {
        let condition = self.assign()?;
        self.expect(&Token::Close, "}}")?;
        let (then, ended) = self.list(at)?;
        let otherwise = self.otherwise(at, ended, Some(is_with))?;
        Ok(Node::If { is_with, condition, then, otherwise })
    }

    /// What is behind `{{else`. `{{else if}}` and `{{else with}}` share the `{{end}}`.
    fn otherwise(&mut self, at: usize, ended: Ended, chained: Option<bool>) -> Result<Vec<Node>> {
        match ended {
            Ended::End => return Ok(Vec::new()),
            Ended::Text => return Err(Error::new(at, "it has no {{end}}")),
            Ended::Else => {}
        }
        if let Some(is_with) = chained
            && self.is_next(&Token::Name(if is_with { "with" } else { "if" }.to_owned()))
        {
            self.tokens.next();
            return Ok(vec![self.deeper(|parser| parser.condition(at, is_with))?]);
        }
        self.expect(&Token::Close, "}} after else")?;
        match self.list(at)? {
            (nodes, Ended::End) => Ok(nodes),
            _ => Err(Error::new(at, "it has no {{end}} after its {{else}}")),
        }
    }

    /// `range`, behind the keyword.
    fn range(&mut self, at: usize) -> Result<Node> {
        let (mut key, mut element) = (None, None);
        let mut over = self.assign()?;
        if self.is_next(&Token::Sign(',')) {
            self.tokens.next();
            key = lone_variable(&over);
            if key.is_none() {
                return Err(Error::new(at, "expected a variable before the comma"));
            }
            over = self.assign()?;
            if over.name.is_none() {
                return Err(Error::new(at, "expected := after the variables"));
            }
            self.variables.extend(key.clone());
        }
        if over.name.is_some() {
            element = over.name;
        }
        self.expect(&Token::Close, "}}")?;
        self.ranges += 1;
        let (body, ended) = self.list(at)?;
        self.ranges -= 1;
        let otherwise = self.otherwise(at, ended, None)?;
        Ok(Node::Range { key, element, over: over.value, body, otherwise })
    }

    /// A pipeline, with the variable that it is assigned to.
    fn assign(&mut self) -> Result<Assign> {
        let at = self.at();
        let Some((_, Token::Variable(name))) = self.tokens.peek().cloned() else {
            return Ok(Assign { name: None, is_new: false, value: self.pipeline()? });
        };
        self.tokens.next();
        match self.tokens.peek() {
            Some((_, Token::Sign(sign @ (':' | '=')))) => {
                let is_new = *sign == ':';
                self.tokens.next();
                if !is_new {
                    self.known(at, &name)?;
                }
                let value = self.pipeline()?;
                if is_new {
                    self.variables.push(name.clone());
                }
                Ok(Assign { name: Some(name), is_new, value })
            }
            // The key of a range is not known yet.
            Some((_, Token::Sign(','))) => {
                let command = Command { at, words: vec![Operand::Variable(name)] };
                Ok(Assign { name: None, is_new: false, value: Pipeline(vec![command]) })
            }
            _ => {
                self.known(at, &name)?;
                let first = self.fields(Operand::Variable(name))?;
                Ok(Assign { name: None, is_new: false, value: self.pipeline_from(at, vec![first])? })
            }
        }
    }

    fn known(&self, at: usize, name: &str) -> Result<()> {
        match self.variables.iter().any(|known| known == name) {
            true => Ok(()),
            false => Err(Error::new(at, format!("undefined variable {name}"))),
        }
    }

    fn pipeline(&mut self) -> Result<Pipeline> {
        let at = self.at();
        self.pipeline_from(at, Vec::new())
    }

    /// A pipeline whose first command starts with `words`.
    fn pipeline_from(&mut self, at: usize, words: Vec<Operand>) -> Result<Pipeline> {
        let mut commands = vec![self.command(at, words)?];
        while self.is_next(&Token::Sign('|')) {
            self.tokens.next();
            let at = self.at();
            let command = self.command(at, Vec::new())?;
            let takes = matches!(command.words[0], Operand::Function(_) | Operand::Field(..));
            if !takes {
                return Err(Error::new(at, "expected a function after |"));
            }
            commands.push(command);
        }
        Ok(Pipeline(commands))
    }

    fn command(&mut self, at: usize, mut words: Vec<Operand>) -> Result<Command> {
        while let Some(word) = self.operand()? {
            words.push(word);
        }
        match words.first() {
            None => Err(Error::new(at, "a value is missing")),
            Some(Operand::Function(_) | Operand::Field(..)) => Ok(Command { at, words }),
            Some(_) if words.len() > 1 => Err(Error::new(at, "it is no function and takes no arguments")),
            Some(_) => Ok(Command { at, words }),
        }
    }

    /// The next word of a command. `None` at its end.
    fn operand(&mut self) -> Result<Option<Operand>> {
        let at = self.at();
        let operand = match self.tokens.peek() {
            None | Some((_, Token::Close | Token::Open | Token::Text(_) | Token::Sign(')' | '|' | ','))) => {
                return Ok(None);
            }
            Some((_, Token::Sign('('))) => {
                self.tokens.next();
                let inner = self.deeper(Self::pipeline)?;
                self.expect(&Token::Sign(')'), ")")?;
                Operand::Group(inner)
            }
            Some((_, Token::Sign(sign))) => {
                return Err(Error::new(at, format!("{sign:?} has no meaning here")));
            }
            Some(_) => {
                let Some((_, token)) = self.tokens.next() else { return Ok(None) };
                self.word(at, token)?
            }
        };
        self.fields(operand).map(Some)
    }

    fn word(&self, at: usize, token: Token) -> Result<Operand> {
        Ok(match token {
            Token::Field { name, .. } if name.is_empty() => Operand::Dot,
            Token::Field { name, .. } => Operand::Field(Box::new(Operand::Dot), name),
            Token::Variable(name) => {
                self.known(at, &name)?;
                Operand::Variable(name)
            }
            Token::String(text) => Operand::Literal(text.into()),
            Token::Number(text) => Operand::Literal(number(at, &text)?),
            Token::Name(name) => match name.as_str() {
                "true" | "false" => Operand::Literal((name == "true").into()),
                "nil" => Operand::Nil,
                _ if function::exists(&name) => Operand::Function(name),
                _ => return Err(Error::new(at, format!("function {name:?} is not supported"))),
            },
            _ => return Err(Error::new(at, "a value is missing")),
        })
    }

    /// The fields behind an operand: `$x.a.b`, `(index . 0).c`.
    fn fields(&mut self, mut operand: Operand) -> Result<Operand> {
        let mut depth = 0;
        while let Some((at, Token::Field { name, is_apart: false })) = self.tokens.peek().cloned() {
            depth += 1;
            if name.is_empty() || depth > DEEPEST {
                return Err(Error::new(at, "a field has a name"));
            }
            if matches!(operand, Operand::Function(_) | Operand::Literal(_) | Operand::Nil) {
                return Err(Error::new(at, "it has no fields"));
            }
            self.tokens.next();
            operand = Operand::Field(Box::new(operand), name);
        }
        Ok(operand)
    }
}

/// The variable, if it is nothing else.
fn lone_variable(assign: &Assign) -> Option<String> {
    match assign.value.0.as_slice() {
        [Command { words, .. }] => match words.as_slice() {
            [Operand::Variable(name)] => Some(name.clone()),
            _ => None,
        },
        _ => None,
    }
}

fn number(at: usize, text: &str) -> Result<Value> {
    let plain = text.strip_prefix('+').unwrap_or(text);
    let whole = plain.parse::<i64>().map(Number::from).ok();
    let number = whole.or_else(|| plain.parse::<f64>().ok().and_then(Number::from_f64));
    number.map(Value::Number).ok_or_else(|| Error::new(at, format!("{text:?} is no number")))
}
