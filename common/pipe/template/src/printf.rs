//! Go's `printf`, as far as formats of lists need it: `%s`, `%v`, `%q`, `%d`, `%x`, `%f`, `%t` and `%%`, with width, precision
//! and the flags `-`, `+`, `0` and space.

use serde_json::Value;

use crate::{LONGEST, value};

/// The widest field.
const WIDEST: usize = 10_000;

/// A directive: `%-20.3s`.
#[derive(Default)]
struct Directive {
    is_left: bool,
    has_sign: bool,
    has_space: bool,
    has_zeros: bool,
    width: usize,
    precision: Option<usize>,
}

/// Fills the arguments into the format.
///
/// # Errors
/// When a directive is unknown, or has no argument, or too many arguments are given.
pub(crate) fn fill(format: &str, arguments: &[Value]) -> Result<String, String> {
    let mut text = String::new();
    let mut characters = format.chars().peekable();
    let mut arguments = arguments.iter();
    while let Some(one) = characters.next() {
        if one != '%' {
            text.push(one);
            continue;
        }
        let mut directive = Directive::default();
        while let Some(flag) = characters.next_if(|flag| "-+0 ".contains(*flag)) {
            match flag {
                '-' => directive.is_left = true,
                '+' => directive.has_sign = true,
                ' ' => directive.has_space = true,
                _ => directive.has_zeros = true,
            }
        }
        directive.width = number(&mut characters)?.unwrap_or_default();
        if characters.next_if_eq(&'.').is_some() {
            directive.precision = Some(number(&mut characters)?.unwrap_or_default());
        }
        let verb = characters.next().ok_or("printf: the format ends after %")?;
        if verb == '%' {
            text.push('%');
            continue;
        }
        let argument = arguments.next().ok_or_else(|| format!("printf: no value for %{verb}"))?;
        text += &directive.padded(&directive.one(verb, argument)?);
        if text.len() > LONGEST {
            return Err(format!("the result of printf is longer than {LONGEST} bytes"));
        }
    }
    match arguments.count() {
        0 => Ok(text),
        more => Err(format!("printf: there are {more} values too many")),
    }
}

fn number(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Option<usize>, String> {
    let mut number = None;
    while let Some(digit) = characters.next_if(char::is_ascii_digit).and_then(|digit| digit.to_digit(10)) {
        let next = number.unwrap_or(0) * 10 + digit as usize;
        if next > WIDEST {
            return Err(format!("printf: wider than {WIDEST}"));
        }
        number = Some(next);
    }
    Ok(number)
}

impl Directive {
    /// The argument without its padding.
    fn one(&self, verb: char, argument: &Value) -> Result<String, String> {
        let wrong = || format!("printf: %{verb} does not take {}", value::kind(argument));
        let cut = |text: String| match self.precision {
            Some(precision) => text.chars().take(precision).collect(),
            None => text,
        };
        Ok(match (verb, argument) {
            ('s', Value::String(text)) => cut(text.clone()),
            ('s', Value::Array(_) | Value::Object(_)) | ('v', Value::String(_)) => {
                cut(value::printed(argument))
            }
            ('v' | 'd', Value::Number(number)) if number.is_i64() || number.is_u64() => {
                self.signed(number.to_string())
            }
            ('v', _) | ('t', Value::Bool(_)) => value::printed(argument),
            ('q', Value::String(text)) => cut(Value::from(text.as_str()).to_string()),
            ('x', Value::String(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
            ('x', Value::Number(number)) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => self.signed(format!("{number:x}")),
                (None, Some(number)) => format!("-{:x}", number.unsigned_abs()),
                (None, None) => return Err(wrong()),
            },
            ('f', Value::Number(number)) if number.is_f64() => {
                let precision = self.precision.unwrap_or(6).min(100);
                self.signed(format!("{:.precision$}", number.as_f64().unwrap_or_default()))
            }
            ('s' | 'd' | 'q' | 'x' | 't' | 'f', _) => return Err(wrong()),
            _ => return Err(format!("printf: %{verb} is not supported")),
        })
    }

    fn signed(&self, digits: String) -> String {
        match (digits.starts_with('-'), self.has_sign, self.has_space) {
            (false, true, _) => format!("+{digits}"),
            (false, false, true) => format!(" {digits}"),
            _ => digits,
        }
    }

    fn padded(&self, text: &str) -> String {
        let missing = self.width.saturating_sub(text.chars().count());
        match (self.is_left, self.has_zeros) {
            (true, _) => format!("{text}{}", " ".repeat(missing)),
            (false, true) => {
                let (sign, digits) = text.split_at(usize::from(text.starts_with(['-', '+'])));
                format!("{sign}{}{digits}", "0".repeat(missing))
            }
            (false, false) => format!("{}{text}", " ".repeat(missing)),
        }
    }
}
