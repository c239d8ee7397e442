//! Reads equations.

use super::{HELPERS, Operand, Term};

/// One alternative of an equation.
#[derive(Debug, Clone, PartialEq)]
pub struct Alternative {
    /// What is there.
    pub left: Term,
    /// What may stand there instead.
    pub right: Term,
}

/// Reads an equation.
///
/// # Errors
/// A sentence that says what is wrong and where.
pub fn parse(text: &str) -> Result<Vec<Alternative>, String> {
    let mut parser = Parser { text, at: 0 };
    let mut out = Vec::new();
    loop {
        let left = parser.term()?;
        parser.expect("=>")?;
        let right = parser.term()?;
        let mut alternative = Alternative { left, right };
        if parser.take("where") {
            match parser.definition()? {
                Some((name, term)) => {
                    alternative.left = alternative.left.with(&name, &term);
                    alternative.right = alternative.right.with(&name, &term);
                }
                None => {
                    let rest = &parser.text[parser.at..];
                    parser.at += rest.find(';').unwrap_or(rest.len());
                }
            }
        }
        out.push(alternative);
        if !parser.take(";") {
            break;
        }
    }
    if parser.rest().is_empty() { Ok(out) } else { Err(parser.wrong("the end")) }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn rest(&mut self) -> &str {
        self.at = self.text.len() - self.text[self.at..].trim_start().len();
        &self.text[self.at..]
    }

    fn wrong(&mut self, expected: &str) -> String {
        format!("expected {expected} at `{}`", self.rest())
    }

    fn take(&mut self, token: &str) -> bool {
        let is_next = self.rest().starts_with(token);
        self.at += if is_next { token.len() } else { 0 };
        is_next
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.take(token) { Ok(()) } else { Err(self.wrong(&format!("`{token}`"))) }
    }

    /// A word of letters, digits and underscores.
    fn word(&mut self) -> String {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let word = rest[..end].to_owned();
        self.at += end;
        word
    }

    /// A name and what it stands for, if that is what follows and not a sentence.
    fn definition(&mut self) -> Result<Option<(String, Term)>, String> {
        let start = self.at;
        let name = self.word();
        if name.is_empty() || !self.take("=") {
            self.at = start;
            return Ok(None);
        }
        Ok(Some((name, self.term()?)))
    }

    fn infix(
        &mut self,
        ops: &[(char, &'static str)],
        next: fn(&mut Self) -> Result<Term, String>,
    ) -> Result<Term, String> {
        let mut left = next(self)?;
        loop {
            let sign = self.rest().chars().next();
            let Some((_, op)) = ops.iter().find(|o| Some(o.0) == sign) else { return Ok(left) };
            self.at += 1;
            left = Term::Infix(op, Box::new(left), Box::new(next(self)?));
        }
    }

    fn term(&mut self) -> Result<Term, String> {
        self.infix(&[('+', "Add"), ('-', "Sub")], |p| {
            if !p.take("-") {
                return p.factor();
            }
            Ok(match p.factor()? {
                Term::Number(n) => Term::Number(-n),
                other => Term::Minus(Box::new(other)),
            })
        })
    }

    fn factor(&mut self) -> Result<Term, String> {
        self.infix(&[('*', "Mul"), ('/', "Div")], Self::primary)
    }

    fn primary(&mut self) -> Result<Term, String> {
        if self.take("(") {
            let inner = self.term()?;
            self.expect(")")?;
            return Ok(inner);
        }
        let first = self.rest().chars().next().unwrap_or(' ');
        if first.is_ascii_digit() {
            let rest = self.rest();
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let number = rest[..end].parse().map_err(|_| format!("`{}` is no number", &rest[..end]))?;
            self.at += end;
            return Ok(Term::Number(number));
        }
        if !first.is_alphabetic() {
            return Err(self.wrong("a term"));
        }
        let name = self.word();
        let is_family = self.text[self.at..].starts_with("*(") && first.is_uppercase();
        if !is_family && !self.text[self.at..].starts_with(['(', '|']) {
            let each = self.take("[i]");
            return Ok(Term::Variable { name, each, optional: self.take("?") });
        }
        let mut heads = vec![if is_family && self.take("*") { format!("{name}*") } else { name.clone() }];
        while self.take("|") {
            heads.push(self.word());
        }
        let operands = self.operands()?;
        if first.is_uppercase() {
            return Ok(Term::Op(heads, operands.into_iter().map(of_each).collect()));
        }
        match name.as_str() {
            "f" => Ok(Term::Function(name, operands)),
            "sum" => Ok(Term::Sum(operands.into_iter().map(of_each).collect())),
            "product" => Ok(Term::Product(operands)),
            _ if HELPERS.iter().any(|h| h.name == name) => {
                Ok(Term::Helper(name, operands.into_iter().map(as_set).collect()))
            }
            _ => Err(format!("`{name}` is no helper that the table of equations lists")),
        }
    }

    fn operands(&mut self) -> Result<Vec<Operand>, String> {
        self.expect("(")?;
        let mut operands = Vec::new();
        while !self.take(")") {
            operands.push(self.operand()?);
            if self.take(";") {
                self.sentence()?;
                break;
            }
            if !self.take(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(operands)
    }

    fn operand(&mut self) -> Result<Operand, String> {
        if self.take("..") {
            return Ok(Operand::Rest);
        }
        if self.take("_") {
            return Ok(Operand::Missing);
        }
        let term = self.term()?;
        Ok(match (self.take(".."), self.text[self.at..].starts_with('?')) {
            (true, true) => {
                self.at += 1;
                Operand::Some(term)
            }
            (true, false) => Operand::Run(term),
            (false, _) => Operand::One(term),
        })
    }

    /// Words up to the parenthesis that closes.
    fn sentence(&mut self) -> Result<(), String> {
        let mut depth = 0;
        for (i, c) in self.text[self.at..].char_indices() {
            match c {
                '(' => depth += 1,
                ')' if depth == 0 => {
                    self.at += i + 1;
                    return Ok(());
                }
                ')' => depth -= 1,
                _ => {}
            }
        }
        Err("a parenthesis is not closed".to_owned())
    }
}

/// `p..` is short for `p[i]..`.
fn of_each(operand: Operand) -> Operand {
    match operand {
        Operand::Run(Term::Variable { name, optional, .. }) => {
            Operand::Run(Term::Variable { name, each: true, optional })
        }
        other => other,
    }
}

/// In a helper, `p..` is a set.
fn as_set(operand: Operand) -> Operand {
    match operand {
        Operand::Run(Term::Variable { name, each: false, .. }) => Operand::Set(name),
        other => other,
    }
}
