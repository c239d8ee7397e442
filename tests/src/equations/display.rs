//! Equations as text, as they are read.

use std::fmt;

use super::{Alternative, Operand, Term};

impl fmt::Display for Alternative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} => {}", self.left, self.right)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |operands: &[Operand]| operands.iter().map(Operand::to_string).collect::<Vec<_>>().join(", ");
        match self {
            Term::Variable { name, each, optional } => {
                write!(f, "{name}{}{}", if *each { "[i]" } else { "" }, if *optional { "?" } else { "" })
            }
            Term::Number(n) => write!(f, "{n}"),
            Term::Infix(op, a, b) => {
                let sign = [("Add", '+'), ("Sub", '-'), ("Mul", '*'), ("Div", '/')].iter().find(|s| s.0 == *op);
                write!(f, "({a} {} {b})", sign.map_or('?', |s| s.1))
            }
            Term::Minus(a) => write!(f, "-({a})"),
            Term::Op(heads, operands) => write!(f, "{}({})", heads.join("|"), of(operands)),
            Term::Sum(operands) => write!(f, "sum({})", of(operands)),
            Term::Product(operands) => write!(f, "product({})", of(operands)),
            Term::Function(name, operands) | Term::Helper(name, operands) => write!(f, "{name}({})", of(operands)),
        }
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operand::One(t) => write!(f, "{t}"),
            Operand::Run(t) => write!(f, "{t}.."),
            Operand::Some(t) => write!(f, "{t}..?"),
            Operand::Set(name) => write!(f, "{name}.."),
            Operand::Rest => f.write_str(".."),
            Operand::Missing => f.write_str("_"),
        }
    }
}
