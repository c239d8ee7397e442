//! The text form of a graph (`.cir`): for tests, and to read what a rewrite made.
//!
//! ```text
//! # A comment.
//! graph(x: f32[N, 8, 14, 14]) {
//!   w: f32[8, 8, 3, 3] = random(1)
//!   b: f32[8] = zeros
//!   %1 = Conv(x, w, b) {auto_pad="NOTSET", dilations=[1, 1], group=1, pads=[1, 1, 1, 1], strides=[1, 1]} : f32[N, 8, 14, 14]
//!   return %1 as y
//! }
//! ```
//!
//! Attributes are those of `Op::to_attrs`, an operand `_` is a hole, and the type behind an operator is optional: where it is
//! given it must be the one that follows. A constant's elements are a list or one of the [`Generator`]s.

mod generate;
mod parse;
mod print;
#[cfg(test)]
mod tests;

pub use generate::Generator;
pub use parse::parse;
pub use print::print;

/// Why a text is not a graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct TextError {
    /// The line, counted from 1.
    pub line: usize,
    /// The character in it, counted from 1.
    pub column: usize,
    /// What is wrong there.
    pub problem: String,
}

/// Operands, sizes or elements in one text at most; a constant may have this many elements.
const LARGEST: usize = 1 << 24;

fn is_name_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

fn is_name_part(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '.'
}

/// Whether a value's name needs no quotes: an identifier, or `%` and digits.
fn is_bare(name: &str) -> bool {
    match name.strip_prefix('%') {
        Some(digits) => !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit()),
        None => name != "_" && name.starts_with(is_name_start) && name.chars().all(is_name_part),
    }
}
