//! Dimensions as text, and back.

use super::*;

impl fmt::Debug for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(value) => write!(f, "{value}"),
            Dim::Expr(expr) => write!(f, "{expr}"),
        }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let symbolic = self.terms.iter().filter(|(m, _)| !m.is_constant());
        let constant = self.terms.iter().filter(|(m, _)| m.is_constant());
        for (index, (monomial, coefficient)) in symbolic.chain(constant).enumerate() {
            f.write_str(match (index, *coefficient < 0) {
                (0, false) => "",
                (0, true) => "-",
                (_, false) => " + ",
                (_, true) => " - ",
            })?;
            let magnitude = coefficient.unsigned_abs();
            let atoms = monomial.0.iter();
            let mut separator = "";
            if magnitude != 1 || monomial.is_constant() {
                write!(f, "{magnitude}")?;
                separator = "*";
            }
            for atom in atoms.flat_map(|(atom, exponent)| std::iter::repeat_n(atom, *exponent as usize)) {
                write!(f, "{separator}{atom}")?;
                separator = "*";
            }
        }
        Ok(())
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Atom::Symbol(symbol) if is_identifier(symbol) => f.write_str(symbol),
            Atom::Symbol(symbol) => write_quoted(f, symbol),
            Atom::FloorDiv(numerator, denominator) => {
                let bare_numerator = match numerator {
                    Dim::Fixed(value) => *value >= 0,
                    Dim::Expr(expr) => expr.terms.len() == 1 && expr.terms.values().all(|c| *c > 0),
                };
                let bare_denominator = match denominator {
                    Dim::Fixed(value) => *value >= 0,
                    Dim::Expr(_) => denominator.as_atom().is_some(),
                };
                f.write_str("floor(")?;
                write_operand(f, numerator, bare_numerator)?;
                f.write_str("/")?;
                write_operand(f, denominator, bare_denominator)?;
                f.write_str(")")
            }
            Atom::Max(dims) => write_call(f, "max", dims),
            Atom::Min(dims) => write_call(f, "min", dims),
            Atom::Overflow(text) => {
                f.write_str("overflow(")?;
                write_quoted(f, text)?;
                f.write_str(")")
            }
        }
    }
}

fn write_operand(f: &mut fmt::Formatter<'_>, dim: &Dim, bare: bool) -> fmt::Result {
    if bare { write!(f, "{dim}") } else { write!(f, "({dim})") }
}

fn write_call(f: &mut fmt::Formatter<'_>, name: &str, dims: &BTreeSet<Dim>) -> fmt::Result {
    write!(f, "{name}(")?;
    for (index, dim) in dims.iter().enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        write!(f, "{separator}{dim}")?;
    }
    f.write_str(")")
}

fn write_quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let escaped = text.replace('\\', "\\\\").replace('\'', "\\'");
    write!(f, "'{escaped}'")
}

fn is_identifier_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

fn is_identifier_part(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '.'
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(is_identifier_start) && text.chars().all(is_identifier_part)
}

impl FromStr for Dim {
    type Err = ParseDimError;
    fn from_str(text: &str) -> Result<Dim, ParseDimError> {
        Dim::parse(text)
    }
}

/// Recursive descent over
///
/// ```text
/// sum     = ["-"] product {("+" | "-") product}
/// product = factor {"*" factor}
/// factor  = number | symbol | "(" sum ")" | call
/// call    = ("floor" | "ceil") "(" ["-"] product "/" factor ")" | "mod" "(" sum "," sum ")"
///         | ("max" | "min") "(" sum {"," sum} ")" | "overflow" "(" quoted ")"
/// ```
pub(super) struct Parser<'a> {
    pub(super) text: &'a str,
    pub(super) offset: usize,
}

impl<'a> Parser<'a> {
    pub(super) fn error(&self, expected: &'static str) -> ParseDimError {
        ParseDimError { offset: self.offset, expected }
    }

    pub(super) fn rest(&self) -> &'a str {
        self.text.get(self.offset..).unwrap_or("")
    }

    pub(super) fn peek(&mut self) -> Option<char> {
        let rest = self.rest();
        self.offset += rest.len() - rest.trim_start().len();
        self.rest().chars().next()
    }

    pub(super) fn accept(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.offset += wanted.len_utf8();
        }
        found
    }

    pub(super) fn expect(&mut self, wanted: char, name: &'static str) -> Result<(), ParseDimError> {
        match self.accept(wanted) {
            true => Ok(()),
            false => Err(self.error(name)),
        }
    }

    pub(super) fn take_while(&mut self, accepts: fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.find(|c| !accepts(c)).unwrap_or(rest.len());
        self.offset += length;
        rest.get(..length).unwrap_or("")
    }

    pub(super) fn nested(&self, depth: u32) -> Result<u32, ParseDimError> {
        match depth < MAX_DEPTH {
            true => Ok(depth + 1),
            false => Err(self.error("at most 64 levels of nesting")),
        }
    }

    pub(super) fn sum(&mut self, depth: u32) -> Result<Dim, ParseDimError> {
        let negative = self.accept('-');
        let mut sum = self.product(depth, false, negative)?;
        loop {
            let negative = self.accept('-');
            if !negative && !self.accept('+') {
                return Ok(sum);
            }
            sum = sum + self.product(depth, false, negative)?;
        }
    }

    pub(super) fn product(&mut self, depth: u32, operand: bool, negative: bool) -> Result<Dim, ParseDimError> {
        let mut product = self.factor(depth, operand, negative)?;
        while self.accept('*') {
            product = product * self.factor(depth, operand, false)?;
        }
        Ok(product)
    }

    /// The parentheses of an `operand` of a quotient do not count as another level, so that every
    /// expression within `MAX_DEPTH` can be read back.
    pub(super) fn factor(&mut self, depth: u32, operand: bool, negative: bool) -> Result<Dim, ParseDimError> {
        let factor = match self.peek() {
            // The sign belongs to the number, whose magnitude may be that of the least integer.
            Some('0'..='9') => return self.number(negative),
            Some('(') => {
                let depth = if operand { depth } else { self.nested(depth)? };
                self.offset += 1;
                let sum = self.sum(depth)?;
                self.expect(')', "')'")?;
                sum
            }
            Some('\'') => Dim::symbol(self.quoted()?),
            Some(c) if is_identifier_start(c) => {
                let start = self.offset;
                let name = self.take_while(is_identifier_part);
                if self.accept('(') {
                    let depth = self.nested(depth)?;
                    let value = self.call(name, start, depth)?;
                    self.expect(')', "')'")?;
                    value
                } else {
                    Dim::symbol(name)
                }
            }
            _ => return Err(self.error("a number, a symbol, a function or '('")),
        };
        Ok(if negative { -factor } else { factor })
    }

    pub(super) fn call(&mut self, name: &str, start: usize, depth: u32) -> Result<Dim, ParseDimError> {
        match name {
            "floor" | "ceil" => {
                let negative = self.accept('-');
                let numerator = self.product(depth, true, negative)?;
                self.expect('/', "'/'")?;
                let denominator = self.factor(depth, true, false)?;
                Ok(match name {
                    "floor" => numerator.floor_div(&denominator),
                    _ => numerator.ceil_div(&denominator),
                })
            }
            "mod" => {
                let dividend = self.sum(depth)?;
                self.expect(',', "','")?;
                Ok(dividend.rem_floor(&self.sum(depth)?))
            }
            "max" | "min" => {
                let choose = if name == "max" { Dim::maximum } else { Dim::minimum };
                let mut extremum = self.sum(depth)?;
                while self.accept(',') {
                    extremum = choose(&extremum, &self.sum(depth)?);
                }
                Ok(extremum)
            }
            "overflow" => {
                self.peek();
                Ok(Dim::overflow(&self.quoted()?))
            }
            _ => {
                self.offset = start;
                Err(self.error("floor, ceil, mod, max or min"))
            }
        }
    }

    pub(super) fn number(&mut self, negative: bool) -> Result<Dim, ParseDimError> {
        let start = self.offset;
        let digits = self.take_while(|c| c.is_ascii_digit());
        let value = digits.parse::<i128>().ok();
        let value = value.map(|value| if negative { -value } else { value });
        match value.and_then(|value| i64::try_from(value).ok()) {
            Some(value) => Ok(Dim::Fixed(value)),
            None => {
                self.offset = start;
                Err(self.error("an integer of 64 bits"))
            }
        }
    }

    pub(super) fn quoted(&mut self) -> Result<String, ParseDimError> {
        self.expect('\'', "a quoted text")?;
        let mut text = String::new();
        let mut chars = self.rest().char_indices();
        while let Some((index, c)) = chars.next() {
            match c {
                '\'' => {
                    self.offset += index + 1;
                    return Ok(text);
                }
                '\\' => text.extend(chars.next().map(|(_, escaped)| escaped)),
                _ => text.push(c),
            }
        }
        self.offset = self.text.len();
        Err(self.error("a closing quote"))
    }
}
