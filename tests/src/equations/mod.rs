//! The grammar of `Rule::equation`, and whether a match is an instance of its rule's equation.
//!
//! ```text
//! equation    = alternative { ";" alternative }
//! alternative = term "=>" term [ "where" ( name "=" term | sentence ) ]
//! term        = [ "-" ] factor { ("+" | "-") [ "-" ] factor }
//! factor      = primary { ("*" | "/") primary }
//! primary     = number | variable | head "(" [ operand { "," operand } ] [ ";" sentence ] ")" | "(" term ")"
//! head        = Operator { "|" Operator } | Prefix "*" | "f" | "sum" | "product" | helper
//! operand     = term [ ".." [ "?" ] ] | ".." | "_"
//! variable    = name [ "[i]" ] [ "?" ]
//! ```
//!
//! ```text
//! x + 0 => x; x - 0 => x
//! Relu(Relu(x)) => Relu(x)
//! Conv(Conv(x, w1, b1?), w2, b2?) => Conv(x, compose(w1, w2), b2? + response(w2, b1?))
//! Concat(f(x[i])..) => f(Concat(x[i]..))
//! ```
//!
//! `where s = g / Sqrt(v + eps)` says what `s` stands for on both sides. What a sentence says is for people: attributes and conditions are not checked here. All else is checked:
//!
//! * `Conv(x, w, b)`: a head in upper case is an operator, by its ONNX name, with its operands in their order; `_` is one that is
//!   missing. `Add|Sub(x, c)` is one of several operators, `Reduce*(x)` one whose name begins so: the same one wherever this head
//!   occurs in an alternative, or in a term of a run. `+ - * /` are Add, Sub, Mul and Div. The operands of commutative operators stand in either order.
//!   `..` stands for further operands that are constants or are about shapes.
//! * `x`: a variable stands for one class of values, the same one wherever it occurs in an alternative; `x`, `y` and `z` are never
//!   constants. A variable that occurs on the right alone stands for one constant that the rule makes.
//! * `b?` may be missing, and is missing wherever it occurs then: a sum is what is left of it, anything else that is computed from it
//!   is missing too, but for what a helper on the left is made of. If all elements of `b` are 0, the right side may be written as if it were missing.
//! * `0`, `1`: a constant all of whose elements are this number.
//! * `-x`: Neg, 0 - x, or x * -1.
//! * On the right, what is computed from constants may stand under a Reshape and be spread by a product with ones: neither is
//!   spoken of.
//! * `f(x)`: some operator, the same one with the same attributes and further operands wherever it occurs.
//! * `Concat(p.., Conv(x, w[i], b[i]?).., q..)`: `term..` is a run of one or more operands. `w[i]` is another variable in each of
//!   them, the same run of variables wherever it occurs; a constant 0 may stand for a `b[i]` that is missing. `p..` is short for
//!   `p[i]..`, and a run of variables may be empty.
//! * `sum(Conv(x, w[i]).., x)`: a tree of additions and subtractions whose leaves are these terms, in any order; each term of a run
//!   has the same sign wherever the run occurs.
//! * `product(x, Sigmoid(x))`: a tree of products and quotients whose factors are these terms, in any order, and constants.
//! * `embedded(w)`: a head in lower case is a *helper*, a row of [`HELPERS`]. It stands for a term that is made of its operands, of all
//!   of them and of nothing else but constants that the rule makes (on the left: constants) and sizes, by the operators that
//!   the table allows and with all those that the table asks for. With `..` it may be made of other values too. In a helper,
//!   `x[i]..?` are some terms of a run, and `w..` is a set of values, the same set wherever it occurs in a helper; where there are two
//!   sets on the left, the first one has what is computed from the inputs and the second one constants.

use std::cell::Cell;

mod display;
mod env;
mod helpers;
mod parse;
mod slips;
mod trees;
mod unify;

pub use env::{Env, Value};
pub use helpers::{HELPERS, Helper};
pub use parse::{Alternative, parse};
pub use slips::{slips, with_slips};
pub use unify::{Pair, unify};

/// A term of an equation.
#[derive(Debug, Clone, PartialEq)]
pub enum Term {
    /// A value.
    Variable {
        /// Its name.
        name: String,
        /// Whether it is another one for each term of a run.
        each: bool,
        /// Whether it may be missing.
        optional: bool,
    },
    /// A constant of which all elements are this number.
    Number(f64),
    /// One of these operators.
    Op(Vec<String>, Vec<Operand>),
    /// An Add, Sub, Mul or Div, written between its operands.
    Infix(&'static str, Box<Term>, Box<Term>),
    /// The negative.
    Minus(Box<Term>),
    /// Some operator, by the name it has in the equation.
    Function(String, Vec<Operand>),
    /// A tree of additions and subtractions.
    Sum(Vec<Operand>),
    /// A tree of products and quotients, whose constant factors are not spoken of.
    Product(Vec<Operand>),
    /// Something made of its operands.
    Helper(String, Vec<Operand>),
}

/// An operand of a term.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// One.
    One(Term),
    /// A run of them.
    Run(Term),
    /// Of a helper: some terms of a run.
    Some(Term),
    /// Of a helper: a set of values.
    Set(String),
    /// Whatever else there is.
    Rest,
    /// None.
    Missing,
}

impl Operand {
    fn map(&self, of: &dyn Fn(&Term) -> Term) -> Operand {
        match self {
            Operand::One(t) => Operand::One(of(t)),
            Operand::Run(t) => Operand::Run(of(t)),
            Operand::Some(t) => Operand::Some(of(t)),
            Operand::Set(_) | Operand::Rest | Operand::Missing => self.clone(),
        }
    }
}

impl Term {
    /// The terms that it is made of.
    pub fn parts(&self) -> Vec<&Term> {
        match self {
            Term::Variable { .. } | Term::Number(_) => Vec::new(),
            Term::Infix(_, a, b) => vec![a, b],
            Term::Minus(a) => vec![a],
            Term::Op(_, operands)
            | Term::Function(_, operands)
            | Term::Sum(operands)
            | Term::Product(operands)
            | Term::Helper(_, operands) => operands
                .iter()
                .filter_map(|o| match o {
                    Operand::One(t) | Operand::Run(t) | Operand::Some(t) => Some(t),
                    Operand::Set(_) | Operand::Rest | Operand::Missing => None,
                })
                .collect(),
        }
    }

    /// Every term inside, itself first.
    pub fn all(&self) -> Vec<&Term> {
        let mut out = vec![self];
        self.parts().into_iter().for_each(|p| out.extend(p.all()));
        out
    }

    /// The term with another one in the place of a variable.
    fn with(&self, wanted: &str, term: &Term) -> Term {
        match self {
            Term::Variable { name, .. } if name == wanted => term.clone(),
            other => other.map(&|t| t.with(wanted, term)),
        }
    }

    /// The term with another one in the place of the part at `index`.
    fn with_part(&self, index: usize, part: &Term) -> Term {
        let next = Cell::new(0);
        self.map(&|t| {
            next.set(next.get() + 1);
            if next.get() == index + 1 { part.clone() } else { t.clone() }
        })
    }

    /// The term made of what `of` makes of its parts, in their order.
    fn map(&self, of: &dyn Fn(&Term) -> Term) -> Term {
        let boxed = |t: &Term| Box::new(of(t));
        let all = |operands: &[Operand]| operands.iter().map(|o| o.map(of)).collect();
        match self {
            Term::Variable { .. } | Term::Number(_) => self.clone(),
            Term::Infix(op, a, b) => Term::Infix(op, boxed(a), boxed(b)),
            Term::Minus(a) => Term::Minus(boxed(a)),
            Term::Op(heads, operands) => Term::Op(heads.clone(), all(operands)),
            Term::Function(name, operands) => Term::Function(name.clone(), all(operands)),
            Term::Sum(operands) => Term::Sum(all(operands)),
            Term::Product(operands) => Term::Product(all(operands)),
            Term::Helper(name, operands) => Term::Helper(name.clone(), all(operands)),
        }
    }

    /// The term without the variables for which `gone` says so; `None` if nothing is left of it.
    fn without(&self, gone: &dyn Fn(&str) -> bool, is_left: bool) -> Option<Term> {
        let both = |a: &Term, b: &Term| (a.without(gone, is_left), b.without(gone, is_left));
        let boxed = |op, a, b| Term::Infix(op, Box::new(a), Box::new(b));
        Some(match self {
            Term::Variable { name, each: false, optional: true } => {
                if gone(name) {
                    return None;
                }
                Term::Variable { name: name.clone(), each: false, optional: false }
            }
            Term::Variable { .. } | Term::Number(_) => self.clone(),
            Term::Infix(op, a, b) => match (*op, both(a, b)) {
                (_, (Some(a), Some(b))) => boxed(op, a, b),
                ("Add" | "Sub", (Some(a), None)) | ("Add", (None, Some(a))) => a,
                ("Sub", (None, Some(b))) => Term::Minus(Box::new(b)),
                _ => return None,
            },
            Term::Minus(a) => Term::Minus(Box::new(a.without(gone, is_left)?)),
            Term::Op(heads, operands) => Term::Op(heads.clone(), left_of(operands, gone, is_left)),
            Term::Function(name, operands) => Term::Function(name.clone(), left_of(operands, gone, is_left)),
            Term::Sum(operands) => {
                let mut left = left_of(operands, gone, is_left);
                left.retain(|o| *o != Operand::Missing);
                if left.is_empty() {
                    return None;
                }
                Term::Sum(left)
            }
            Term::Product(operands) => Term::Product(left_of(operands, gone, is_left)),
            Term::Helper(name, operands) => {
                let mut left = left_of(operands, gone, is_left);
                if is_left {
                    left.retain(|o| *o != Operand::Missing);
                }
                if left.contains(&Operand::Missing) {
                    return None;
                }
                Term::Helper(name.clone(), left)
            }
        })
    }
}

fn left_of(operands: &[Operand], gone: &dyn Fn(&str) -> bool, is_left: bool) -> Vec<Operand> {
    operands
        .iter()
        .map(|o| match o {
            Operand::One(t) => t.without(gone, is_left).map_or(Operand::Missing, Operand::One),
            Operand::Run(t) => t.without(gone, is_left).map_or(Operand::Missing, Operand::Run),
            other => other.clone(),
        })
        .collect()
}
