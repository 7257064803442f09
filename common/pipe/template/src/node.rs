//! A parsed template.

use serde_json::Value;

/// A template, ready to be filled in.
#[derive(Debug, Clone)]
pub struct Template(pub(crate) Vec<Node>);

impl Template {
    /// The same template with `\t` and `\n` in its text replaced by a tab and the end of a line, as Docker does for lists.
    #[must_use]
    pub fn unescaped(mut self) -> Self {
        unescape(&mut self.0);
        self
    }
}

fn unescape(nodes: &mut [Node]) {
    for node in nodes {
        match node {
            Node::Text(text) => *text = text.replace("\\t", "\t").replace("\\n", "\n"),
            Node::If { then, otherwise, .. } => [then, otherwise].into_iter().for_each(|list| unescape(list)),
            Node::Range { body, otherwise, .. } => {
                [body, otherwise].into_iter().for_each(|list| unescape(list))
            }
            Node::Print(_) | Node::Assign(_) | Node::Break | Node::Continue => {}
        }
    }
}

/// A part of a template.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    /// Text that is printed as it is.
    Text(String),
    /// `{{pipeline}}`: its value is printed.
    Print(Pipeline),
    /// `{{$x := pipeline}}` and `{{$x = pipeline}}`: nothing is printed.
    Assign(Assign),
    /// `{{if}}` or `{{with}}`.
    If { is_with: bool, condition: Assign, then: Vec<Node>, otherwise: Vec<Node> },
    /// `{{range}}`, with the names for the key and the element.
    Range {
        key: Option<String>,
        element: Option<String>,
        over: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    /// `{{break}}`.
    Break,
    /// `{{continue}}`.
    Continue,
}

/// A pipeline whose value may get a name.
#[derive(Debug, Clone)]
pub(crate) struct Assign {
    /// The variable, with its `$`.
    pub(crate) name: Option<String>,
    /// Whether it is a new variable (`:=`).
    pub(crate) is_new: bool,
    pub(crate) value: Pipeline,
}

/// Commands, each of which gets the value of the one before as its last argument.
#[derive(Debug, Clone)]
pub(crate) struct Pipeline(pub(crate) Vec<Command>);

/// A function or a field with arguments, or an operand alone.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    /// Where it is in the template.
    pub(crate) at: usize,
    /// The first word, and its arguments.
    pub(crate) words: Vec<Operand>,
}

/// A word of a command.
#[derive(Debug, Clone)]
pub(crate) enum Operand {
    /// `.`
    Dot,
    /// `nil`
    Nil,
    /// A text, a number, `true` or `false`.
    Literal(Value),
    /// The name of a function.
    Function(String),
    /// `$` or `$name`.
    Variable(String),
    /// `(pipeline)`
    Group(Pipeline),
    /// `.Name` of another operand.
    Field(Box<Operand>, String),
}
