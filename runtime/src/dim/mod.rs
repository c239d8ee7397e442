//! Symbolic dimensions: integers, or canonical polynomials over symbols, floored quotients and extrema.
//!
//! Simplification assumes that every symbol is an integer of at least 1, or at least 0 when its name
//! starts with `?` (the extent of a data-dependent result). A simplified expression agrees with the
//! one written wherever the latter is defined; an undefined part (a zero divisor) may cancel out.

mod range;
mod text;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::{Add, Mul, Neg, Sub};
use std::str::FromStr;
use std::sync::Arc;

use range::*;
use text::Parser;

/// A symbol of a symbolic dimension (an input's `dim_param`, or one introduced by a data-dependent operator).
pub type Symbol = Arc<str>;

/// Values of symbols.
pub type Bindings = BTreeMap<Symbol, i64>;

/// Why a dimension has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DimError {
    /// A symbol of the expression is missing from the bindings.
    #[error("symbol '{0}' has no value")]
    UnboundSymbol(Symbol),
    /// A divisor evaluated to zero.
    #[error("division by zero in a dimension")]
    DivisionByZero,
    /// The value, or the expression when it was built, left the representable range.
    #[error("dimension arithmetic overflowed")]
    Overflow,
}

/// Why a text is not a dimension.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid dimension at byte {offset}: expected {expected}")]
pub struct ParseDimError {
    /// Byte offset of the offending text.
    pub offset: usize,
    /// What the grammar asks for there.
    pub expected: &'static str,
}

/// Deepest nesting of quotients, extrema and parentheses, in expressions and in their text.
const MAX_DEPTH: u32 = 64;
/// Longest text accepted by the parser, in bytes.
const MAX_TEXT: usize = 64 * 1024;
/// Largest expression, in nodes; a larger one counts as overflowed.
const MAX_SIZE: u32 = 1024;
/// Most operands of one maximum or minimum; more count as overflowed.
const MAX_OPERANDS: usize = 64;
/// Longest operation recorded verbatim in an overflowed dimension, in characters.
const MAX_OVERFLOW_TEXT: usize = 256;
/// Case splits that one range query may spend.
const RANGE_FUEL: u32 = 32;

/// A dimension: an integer, or an expression in canonical form.
///
/// Equal polynomials compare equal, and an `Expr` is never a constant. The order is structural, for
/// use as a key. An operation that overflows gives a dimension equal only to itself, absorbing every
/// further operation, whose evaluation fails.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Dim {
    /// A known integer.
    Fixed(i64),
    /// A value depending on symbols.
    Expr(Arc<Expr>),
}

/// A canonical multivariate polynomial with at least one term that is not constant.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Expr {
    terms: Terms,
    size: u32,
    depth: u32,
}

/// Non-zero coefficients of monomials.
type Terms = BTreeMap<Monomial, i64>;

/// Powers of atoms, sorted by atom, exponents positive; empty for the constant term.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Monomial(Vec<(Atom, u32)>);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Atom {
    Symbol(Symbol),
    FloorDiv(Dim, Dim),
    Max(BTreeSet<Dim>),
    Min(BTreeSet<Dim>),
    /// The operation that overflowed; occurs only as the single term of an expression.
    Overflow(Arc<str>),
}

impl Atom {
    fn size_and_depth(&self) -> (u32, u32) {
        let nested = |dims: &mut dyn Iterator<Item = &Dim>| {
            dims.fold((1u32, 1u32), |(size, depth), dim| match dim {
                Dim::Fixed(_) => (size.saturating_add(1), depth),
                Dim::Expr(expr) => (size.saturating_add(expr.size), depth.max(expr.depth.saturating_add(1))),
            })
        };
        match self {
            Atom::Symbol(_) | Atom::Overflow(_) => (1, 0),
            Atom::FloorDiv(numerator, denominator) => nested(&mut [numerator, denominator].into_iter()),
            Atom::Max(dims) | Atom::Min(dims) => nested(&mut dims.iter()),
        }
    }

    fn eval(&self, bindings: &Bindings) -> Result<i128, DimError> {
        match self {
            Atom::Symbol(symbol) => bindings
                .get(symbol)
                .map(|value| i128::from(*value))
                .ok_or_else(|| DimError::UnboundSymbol(symbol.clone())),
            Atom::FloorDiv(numerator, denominator) => {
                let (a, b) = (numerator.eval_wide(bindings)?, denominator.eval_wide(bindings)?);
                if b == 0 {
                    return Err(DimError::DivisionByZero);
                }
                floor_quotient(a, b).ok_or(DimError::Overflow)
            }
            Atom::Max(dims) => eval_extremum(dims, bindings, i128::max),
            Atom::Min(dims) => eval_extremum(dims, bindings, i128::min),
            Atom::Overflow(_) => Err(DimError::Overflow),
        }
    }

    fn substitute(&self, values: &BTreeMap<Symbol, Dim>) -> Dim {
        let extremum = |dims: &BTreeSet<Dim>, choose: fn(&Dim, &Dim) -> Dim| {
            dims.iter().map(|dim| dim.substitute(values)).reduce(|a, b| choose(&a, &b)).unwrap_or(Dim::Fixed(0))
        };
        match self {
            Atom::Symbol(symbol) => match values.get(symbol) {
                Some(value) => value.clone(),
                None => Dim::symbol(symbol.clone()),
            },
            Atom::FloorDiv(numerator, denominator) => {
                numerator.substitute(values).floor_div(&denominator.substitute(values))
            }
            Atom::Max(dims) => extremum(dims, Dim::maximum),
            Atom::Min(dims) => extremum(dims, Dim::minimum),
            Atom::Overflow(text) => Dim::overflow(text),
        }
    }

    fn collect_symbols(&self, symbols: &mut BTreeSet<Symbol>) {
        match self {
            Atom::Symbol(symbol) => {
                symbols.insert(symbol.clone());
            }
            Atom::FloorDiv(numerator, denominator) => {
                numerator.collect_symbols(symbols);
                denominator.collect_symbols(symbols);
            }
            Atom::Max(dims) | Atom::Min(dims) => {
                dims.iter().for_each(|dim| dim.collect_symbols(symbols));
            }
            Atom::Overflow(_) => {}
        }
    }
}

fn eval_extremum(dims: &BTreeSet<Dim>, bindings: &Bindings, choose: fn(i128, i128) -> i128) -> Result<i128, DimError> {
    let mut values = dims.iter().map(|dim| dim.eval_wide(bindings));
    let first = values.next().ok_or(DimError::Overflow)??;
    values.try_fold(first, |best, value| Ok(choose(best, value?)))
}

impl Monomial {
    fn atom(atom: Atom) -> Self {
        Monomial(vec![(atom, 1)])
    }

    fn is_constant(&self) -> bool {
        self.0.is_empty()
    }

    /// The atom of a monomial that is one atom to the first power.
    fn as_atom(&self) -> Option<&Atom> {
        match self.0.as_slice() {
            [(atom, 1)] => Some(atom),
            _ => None,
        }
    }

    fn exponent(&self, atom: &Atom) -> u32 {
        self.0.iter().find_map(|(own, exponent)| (own == atom).then_some(*exponent)).unwrap_or(0)
    }

    fn mul(&self, other: &Monomial) -> Option<Monomial> {
        if other.is_constant() {
            return Some(self.clone());
        }
        let mut powers: BTreeMap<Atom, u32> = self.0.iter().cloned().collect();
        for (atom, exponent) in &other.0 {
            let sum = powers.entry(atom.clone()).or_insert(0);
            *sum = sum.checked_add(*exponent)?;
        }
        Some(Monomial(powers.into_iter().collect()))
    }

    fn div(&self, divisor: &Monomial) -> Option<Monomial> {
        if !divisor.0.iter().all(|(atom, _)| self.exponent(atom) > 0) {
            return None;
        }
        let mut quotient = Vec::with_capacity(self.0.len());
        for (atom, exponent) in &self.0 {
            let exponent = exponent.checked_sub(divisor.exponent(atom))?;
            if exponent > 0 {
                quotient.push((atom.clone(), exponent));
            }
        }
        Some(Monomial(quotient))
    }

    fn gcd(&self, other: &Monomial) -> Monomial {
        let shared = self.0.iter().filter_map(|(atom, exponent)| {
            let exponent = other.exponent(atom).min(*exponent);
            (exponent > 0).then(|| (atom.clone(), exponent))
        });
        Monomial(shared.collect())
    }
}

/// Adds `coefficient * monomial`; `None` on overflow.
fn add_term(terms: &mut Terms, monomial: Monomial, coefficient: i64) -> Option<()> {
    let sum = terms.get(&monomial).copied().unwrap_or(0);
    match sum.checked_add(coefficient)? {
        0 => terms.remove(&monomial),
        sum => terms.insert(monomial, sum),
    };
    Some(())
}

/// Adds `factor * dim`; `None` on overflow.
fn add_scaled(terms: &mut Terms, dim: &Dim, factor: i64) -> Option<()> {
    match dim {
        Dim::Fixed(value) => add_term(terms, Monomial::default(), value.checked_mul(factor)?),
        Dim::Expr(expr) => expr.terms.iter().try_for_each(|(monomial, coefficient)| {
            add_term(terms, monomial.clone(), coefficient.checked_mul(factor)?)
        }),
    }
}

fn mul_terms(a: &Terms, b: &Terms) -> Option<Terms> {
    if a.len().saturating_mul(b.len()) > 4 * MAX_SIZE as usize {
        return None;
    }
    let mut product = Terms::new();
    for (m, p) in a {
        for (n, q) in b {
            add_term(&mut product, m.mul(n)?, p.checked_mul(*q)?)?;
        }
    }
    Some(product)
}

fn map_terms(terms: &Terms, map: impl Fn(&Monomial, i64) -> Option<(Monomial, i64)>) -> Option<Terms> {
    let mut mapped = Terms::new();
    for (monomial, coefficient) in terms {
        let (monomial, coefficient) = map(monomial, *coefficient)?;
        add_term(&mut mapped, monomial, coefficient)?;
    }
    Some(mapped)
}

/// The first term that is not constant.
fn leading(terms: &Terms) -> Option<(&Monomial, i64)> {
    let mut terms = terms.iter().filter(|(monomial, _)| !monomial.is_constant());
    terms.next().map(|(monomial, c)| (monomial, *c))
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// `floor(a / b)`; `None` on overflow or for `b == 0`.
fn floor_quotient(a: i128, b: i128) -> Option<i128> {
    let (quotient, remainder) = (a.checked_div(b)?, a.checked_rem(b)?);
    Some(quotient - i128::from(remainder != 0 && (remainder < 0) != (b < 0)))
}

fn floor_quotient_i64(a: i64, b: i64) -> Option<i64> {
    i64::try_from(floor_quotient(a.into(), b.into())?).ok()
}

impl Dim {
    /// The dimension of a known extent.
    pub const fn fixed(value: i64) -> Dim {
        Dim::Fixed(value)
    }

    /// The dimension that is the value of a symbol.
    pub fn symbol(symbol: impl Into<Symbol>) -> Dim {
        Dim::single(Atom::Symbol(symbol.into()), 1, 0)
    }

    /// The symbol, if this is a symbol and nothing else.
    #[must_use]
    pub fn as_symbol(&self) -> Option<&Symbol> {
        let Dim::Expr(expr) = self else { return None };
        match expr.terms.iter().next() {
            Some((Monomial(powers), 1)) if expr.terms.len() == 1 => match powers.as_slice() {
                [(Atom::Symbol(symbol), 1)] => Some(symbol),
                _ => None,
            },
            _ => None,
        }
    }

    /// The value of a dimension that depends on no symbol.
    pub const fn as_fixed(&self) -> Option<i64> {
        match self {
            Dim::Fixed(value) => Some(*value),
            Dim::Expr(_) => None,
        }
    }

    /// Whether the dimension depends on no symbol.
    pub const fn is_fixed(&self) -> bool {
        matches!(self, Dim::Fixed(_))
    }

    /// Whether building the dimension overflowed, so that it has no value.
    pub fn is_overflow(&self) -> bool {
        matches!(self.as_atom(), Some(Atom::Overflow(_)))
    }

    /// The product of dimensions; 1 for none.
    pub fn product(dims: impl IntoIterator<Item = impl Borrow<Dim>>) -> Dim {
        dims.into_iter().fold(Dim::Fixed(1), |product, dim| product * dim.borrow())
    }

    /// `floor(self / divisor)`. A zero divisor is reported by [`Dim::eval`].
    pub fn floor_div(&self, divisor: &Dim) -> Dim {
        self.try_floor_div(divisor).unwrap_or_else(|| Dim::overflowed("floor", self, divisor))
    }

    /// `ceil(self / divisor)`. A zero divisor is reported by [`Dim::eval`].
    pub fn ceil_div(&self, divisor: &Dim) -> Dim {
        self.try_ceil_div(divisor).unwrap_or_else(|| Dim::overflowed("ceil", self, divisor))
    }

    /// `self - divisor * floor(self / divisor)`: the remainder with the sign of the divisor.
    pub fn rem_floor(&self, divisor: &Dim) -> Dim {
        let quotient = self.floor_div(divisor);
        match divisor {
            // Multiplying by the zero would lose the error of the division.
            Dim::Fixed(0) => quotient,
            _ => self - divisor * quotient,
        }
    }

    /// The larger of two dimensions.
    pub fn maximum(&self, other: &Dim) -> Dim {
        self.try_extremum(other, Extremum::Max).unwrap_or_else(|| Dim::overflowed("max", self, other))
    }

    /// The smaller of two dimensions.
    pub fn minimum(&self, other: &Dim) -> Dim {
        self.try_extremum(other, Extremum::Min).unwrap_or_else(|| Dim::overflowed("min", self, other))
    }

    /// The value under the given symbol values.
    pub fn eval(&self, bindings: &Bindings) -> Result<i64, DimError> {
        match self {
            Dim::Fixed(value) => Ok(*value),
            Dim::Expr(_) => i64::try_from(self.eval_wide(bindings)?).map_err(|_| DimError::Overflow),
        }
    }

    /// Replaces symbols, all at once, and simplifies again; symbols without a replacement stay.
    pub fn substitute(&self, values: &BTreeMap<Symbol, Dim>) -> Dim {
        let Dim::Expr(expr) = self else {
            return self.clone();
        };
        let mut sum = Dim::Fixed(0);
        for (monomial, coefficient) in &expr.terms {
            let mut term = Dim::Fixed(*coefficient);
            for (atom, exponent) in &monomial.0 {
                let value = atom.substitute(values);
                for _ in 0..*exponent {
                    term = term * &value;
                }
            }
            sum = sum + term;
        }
        sum
    }

    /// The symbols the dimension depends on.
    pub fn symbols(&self) -> BTreeSet<Symbol> {
        let mut symbols = BTreeSet::new();
        self.collect_symbols(&mut symbols);
        symbols
    }

    /// Parses the text that `Display` writes; `ceil(a/b)` and `mod(a, b)` are understood as well.
    pub fn parse(text: &str) -> Result<Dim, ParseDimError> {
        let mut parser = Parser { text, offset: 0 };
        if text.len() > MAX_TEXT {
            return Err(parser.error("at most 64 KiB of text"));
        }
        let dim = parser.sum(0)?;
        match parser.peek() {
            None => Ok(dim),
            Some(_) => Err(parser.error("an operator or the end")),
        }
    }

    /// Whether two dimensions have the same value: for all symbol values, for none, or undecided.
    pub fn equals(&self, other: &Dim) -> Option<bool> {
        if self == other {
            return Some(true);
        }
        match self.try_sub(other)? {
            Dim::Fixed(difference) => Some(difference == 0),
            Dim::Expr(expr) => {
                let range = Range::of_terms(&expr.terms, &mut RANGE_FUEL.clone());
                let divisor = expr.content_without_constant();
                let constant = expr.constant().unsigned_abs();
                let never_zero = !range.contains_zero() || constant.checked_rem(divisor)? != 0;
                never_zero.then_some(false)
            }
        }
    }

    /// Whether two dimensions differ even where symbols are 0, which stand for at least 1 otherwise. A model with an empty batch
    /// may hold what fits at no other size, so that this and not [`Dim::equals`] says that shapes never fit.
    pub fn never_equals(&self, other: &Dim) -> bool {
        let from_zero = |dim: &Dim| {
            let symbols = dim.symbols().into_iter();
            dim.substitute(&symbols.map(|s| (s.clone(), Dim::symbol(format!("?{s}")))).collect())
        };
        self.equals(other) == Some(false) && from_zero(self).equals(&from_zero(other)) == Some(false)
    }

    /// Whether a maximum or a minimum occurs in it, which may turn from one operand to another at some size.
    pub fn has_extremum(&self) -> bool {
        let Dim::Expr(expr) = self else { return false };
        expr.terms.keys().flat_map(|monomial| &monomial.0).any(|(atom, _)| match atom {
            Atom::Max(_) | Atom::Min(_) => true,
            Atom::FloorDiv(numerator, denominator) => numerator.has_extremum() || denominator.has_extremum(),
            Atom::Symbol(_) | Atom::Overflow(_) => false,
        })
    }

    /// Whether the value is at least `bound`: for all symbol values, for none, or undecided.
    pub fn at_least(&self, bound: i64) -> Option<bool> {
        let (range, bound) = (Range::of_dim(self), i128::from(bound));
        match () {
            () if range.lower >= bound => Some(true),
            () if range.upper < bound => Some(false),
            () => None,
        }
    }

    /// Whether `divisor` divides the value: for all symbol values, for none, or undecided.
    pub fn divisible_by(&self, divisor: i64) -> Option<bool> {
        let divisor = divisor.unsigned_abs();
        match self {
            Dim::Fixed(value) => value.unsigned_abs().checked_rem(divisor).map(|r| r == 0),
            Dim::Expr(_) if self.is_overflow() => None,
            Dim::Expr(expr) => {
                let symbolic = expr.content_without_constant().checked_rem(divisor)?;
                (symbolic == 0).then(|| expr.constant().unsigned_abs() % divisor == 0)
            }
        }
    }

    /// A proven lower bound of the value.
    pub fn lower_bound(&self) -> Option<i64> {
        let lower = Range::of_dim(self).lower;
        i64::try_from(lower.min(i64::MAX.into())).ok()
    }

    /// A proven upper bound of the value.
    pub fn upper_bound(&self) -> Option<i64> {
        let upper = Range::of_dim(self).upper;
        i64::try_from(upper.max(i64::MIN.into())).ok()
    }

    fn single(atom: Atom, size: u32, depth: u32) -> Dim {
        Dim::Expr(Arc::new(Expr {
            terms: Terms::from([(Monomial::atom(atom), 1)]),
            size: size.saturating_add(1),
            depth,
        }))
    }

    fn from_atom(atom: Atom) -> Option<Dim> {
        let (size, depth) = atom.size_and_depth();
        (size < MAX_SIZE && depth <= MAX_DEPTH).then(|| Dim::single(atom, size, depth))
    }

    /// `None` when the expression is too large.
    fn from_terms(terms: Terms) -> Option<Dim> {
        if leading(&terms).is_none() {
            return Some(Dim::Fixed(terms.into_values().next().unwrap_or(0)));
        }
        let (mut size, mut depth) = (0u32, 0);
        for monomial in terms.keys() {
            size = size.saturating_add(1);
            for (atom, exponent) in &monomial.0 {
                let (atom_size, atom_depth) = atom.size_and_depth();
                size = size.saturating_add(atom_size.saturating_mul(*exponent));
                depth = depth.max(atom_depth);
            }
        }
        let fits = size <= MAX_SIZE && depth <= MAX_DEPTH;
        fits.then(|| Dim::Expr(Arc::new(Expr { terms, size, depth })))
    }

    fn overflow(text: &str) -> Dim {
        Dim::single(Atom::Overflow(text.into()), 1, 0)
    }

    /// The result of an operation that overflowed, named by its text, or a digest of a long one.
    fn overflowed(operation: &str, a: &Dim, b: &Dim) -> Dim {
        let text = format!("{operation}({a}, {b})");
        if text.chars().count() <= MAX_OVERFLOW_TEXT {
            return Dim::overflow(&text);
        }
        let digest = text
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let prefix: String = text.chars().take(MAX_OVERFLOW_TEXT / 2).collect();
        Dim::overflow(&format!("{prefix}... #{digest:016x}"))
    }

    fn to_terms(&self) -> Terms {
        match self {
            Dim::Fixed(0) => Terms::new(),
            Dim::Fixed(value) => Terms::from([(Monomial::default(), *value)]),
            Dim::Expr(expr) => expr.terms.clone(),
        }
    }

    /// The atom of an expression that is nothing but that atom.
    fn as_atom(&self) -> Option<&Atom> {
        match self {
            Dim::Expr(expr) if expr.terms.len() == 1 => {
                let (monomial, coefficient) = expr.terms.first_key_value()?;
                monomial.as_atom().filter(|_| *coefficient == 1)
            }
            _ => None,
        }
    }

    fn either_overflowed(&self, other: &Dim) -> bool {
        self.is_overflow() || other.is_overflow()
    }

    fn eval_wide(&self, bindings: &Bindings) -> Result<i128, DimError> {
        let expr = match self {
            Dim::Fixed(value) => return Ok(i128::from(*value)),
            Dim::Expr(expr) => expr,
        };
        let mut sum = 0i128;
        for (monomial, coefficient) in &expr.terms {
            let mut term = i128::from(*coefficient);
            for (atom, exponent) in &monomial.0 {
                let power = atom.eval(bindings)?.checked_pow(*exponent);
                term = power.and_then(|power| term.checked_mul(power)).ok_or(DimError::Overflow)?;
            }
            sum = sum.checked_add(term).ok_or(DimError::Overflow)?;
        }
        Ok(sum)
    }

    fn collect_symbols(&self, symbols: &mut BTreeSet<Symbol>) {
        if let Dim::Expr(expr) = self {
            let atoms = expr.terms.keys().flat_map(|monomial| &monomial.0);
            atoms.for_each(|(atom, _)| atom.collect_symbols(symbols));
        }
    }

    fn try_linear(&self, other: &Dim, factor: i64) -> Option<Dim> {
        if self.either_overflowed(other) {
            return None;
        }
        let mut terms = self.to_terms();
        add_scaled(&mut terms, other, factor)?;
        Dim::from_terms(terms)
    }

    fn try_add(&self, other: &Dim) -> Option<Dim> {
        match (self, other) {
            (Dim::Fixed(a), Dim::Fixed(b)) => a.checked_add(*b).map(Dim::Fixed),
            (dim, Dim::Fixed(0)) | (Dim::Fixed(0), dim) if !dim.is_overflow() => Some(dim.clone()),
            _ => self.try_linear(other, 1),
        }
    }

    fn try_sub(&self, other: &Dim) -> Option<Dim> {
        match (self, other) {
            (Dim::Fixed(a), Dim::Fixed(b)) => a.checked_sub(*b).map(Dim::Fixed),
            _ => self.try_linear(other, -1),
        }
    }

    fn try_mul(&self, other: &Dim) -> Option<Dim> {
        match (self, other) {
            (Dim::Fixed(a), Dim::Fixed(b)) => a.checked_mul(*b).map(Dim::Fixed),
            (dim, Dim::Fixed(1)) | (Dim::Fixed(1), dim) if !dim.is_overflow() => Some(dim.clone()),
            _ if self.either_overflowed(other) => None,
            _ => Dim::from_terms(mul_terms(&self.to_terms(), &other.to_terms())?),
        }
    }

    fn try_ceil_div(&self, divisor: &Dim) -> Option<Dim> {
        let shifted = match (self, divisor) {
            (Dim::Fixed(a), Dim::Fixed(b)) if *b != 0 => {
                let negated = floor_quotient(-i128::from(*a), (*b).into())?;
                return i64::try_from(-negated).ok().map(Dim::Fixed);
            }
            (_, Dim::Fixed(b)) if *b > 0 => self.try_add(&Dim::Fixed(b - 1)),
            _ => None,
        };
        match shifted {
            Some(shifted) => shifted.try_floor_div(divisor),
            None => {
                let negated = Dim::Fixed(0).try_sub(self)?.try_floor_div(divisor)?;
                Dim::Fixed(0).try_sub(&negated)
            }
        }
    }

    fn try_floor_div(&self, divisor: &Dim) -> Option<Dim> {
        match (self, divisor) {
            (Dim::Fixed(a), Dim::Fixed(b)) if *b != 0 => floor_quotient_i64(*a, *b).map(Dim::Fixed),
            _ if self.either_overflowed(divisor) => None,
            (_, Dim::Fixed(0)) => Dim::from_atom(Atom::FloorDiv(self.clone(), divisor.clone())),
            (_, Dim::Fixed(b)) if *b < 0 => Dim::Fixed(0).try_sub(self)?.floor_div_constant(b.checked_neg()?),
            (_, Dim::Fixed(b)) => self.floor_div_constant(*b),
            (_, Dim::Expr(expr)) => self.floor_div_expr(divisor, expr),
        }
    }

    /// `floor(self / divisor)` for a positive divisor.
    ///
    /// The quotient kept as an atom has a leading coefficient above zero, coefficients below the
    /// divisor, and no factor in common, so that equal roundings up and down coincide.
    fn floor_div_constant(&self, divisor: i64) -> Option<Dim> {
        if divisor == 1 {
            return Some(self.clone());
        }
        let (mut quotient, mut rest) = (Terms::new(), Terms::new());
        for (monomial, coefficient) in self.to_terms() {
            let multiple = if monomial.is_constant() { coefficient.div_euclid(divisor) } else { coefficient / divisor };
            add_term(&mut rest, monomial.clone(), coefficient - multiple * divisor)?;
            add_term(&mut quotient, monomial, multiple)?;
        }
        let (quotient, rest) = (Dim::from_terms(quotient)?, Dim::from_terms(rest)?);
        let Dim::Expr(expr) = &rest else {
            return Some(quotient);
        };

        let common = gcd(divisor.unsigned_abs(), expr.content_without_constant());
        if common > 1 {
            let common = i64::try_from(common).ok()?;
            let reduced = map_terms(&expr.terms, |monomial, coefficient| {
                Some((monomial.clone(), floor_quotient_i64(coefficient, common)?))
            })?;
            let reduced = Dim::from_terms(reduced)?.floor_div_constant(divisor / common)?;
            return quotient.try_add(&reduced);
        }
        let (leading, coefficient) = leading(&expr.terms)?;
        if coefficient < 0 {
            let negated = Dim::Fixed(divisor - 1).try_sub(&rest);
            if let Some(ceiling) = negated.and_then(|negated| negated.floor_div_constant(divisor)) {
                return quotient.try_sub(&ceiling);
            }
        }
        if let Some(Atom::FloorDiv(inner, Dim::Fixed(inner_divisor @ 1..))) = leading.as_atom()
            && coefficient == 1
            && rest.try_sub(&Dim::from_atom(leading.as_atom()?.clone())?) == Some(Dim::Fixed(expr.constant()))
            && let Some(combined) = divisor.checked_mul(*inner_divisor)
            && let Some(offset) = expr.constant().checked_mul(*inner_divisor)
            && let Some(merged) = inner.try_add(&Dim::Fixed(offset))
        {
            return quotient.try_add(&merged.floor_div_constant(combined)?);
        }
        let divisor = Dim::Fixed(divisor);
        match Range::of_dim(&rest).floor_div(Range::of_dim(&divisor)).as_point() {
            Some(value) => quotient.try_add(&Dim::Fixed(value)),
            None => quotient.try_add(&Dim::from_atom(Atom::FloorDiv(rest, divisor))?),
        }
    }

    fn floor_div_expr(&self, divisor: &Dim, expr: &Expr) -> Option<Dim> {
        let divisor_range = Range::of_dim(divisor);
        if divisor_range.contains_zero() {
            return Dim::from_atom(Atom::FloorDiv(self.clone(), divisor.clone()));
        }
        let terms = self.to_terms();
        if terms.is_empty() {
            return Some(Dim::Fixed(0));
        }
        let (leading_monomial, leading_coefficient) = leading(&expr.terms)?;
        if leading_coefficient < 0
            && let Some(numerator) = Dim::Fixed(0).try_sub(self)
            && let Some(denominator) = Dim::Fixed(0).try_sub(divisor)
        {
            return numerator.try_floor_div(&denominator);
        }

        let all = || terms.iter().chain(&expr.terms);
        let content = all().fold(0, |content, (_, c)| gcd(content, c.unsigned_abs()));
        let mut common = leading_monomial.clone();
        for (monomial, _) in all() {
            common = common.gcd(monomial);
        }
        common.0.retain(|(atom, _)| !Range::of_atom(atom, false, &mut RANGE_FUEL.clone()).contains_zero());
        if content > 1 || !common.is_constant() {
            let content = i64::try_from(content).ok()?;
            let cancel = |terms: &Terms| {
                let terms = map_terms(terms, |monomial, c| Some((monomial.div(&common)?, c / content)))?;
                Dim::from_terms(terms)
            };
            return cancel(&terms)?.try_floor_div(&cancel(&expr.terms)?);
        }

        let mut quotient = Terms::new();
        if expr.terms.len() == 1 {
            for (monomial, coefficient) in &terms {
                let multiple = coefficient.checked_div(leading_coefficient)?;
                if multiple != 0
                    && let Some(monomial) = monomial.div(leading_monomial)
                {
                    add_term(&mut quotient, monomial, multiple)?;
                }
            }
        } else if let Some(coefficient) = terms.get(leading_monomial) {
            let multiple = coefficient.checked_div(leading_coefficient)?;
            let multiple = Terms::from([(Monomial::default(), multiple)]);
            if mul_terms(&multiple, &expr.terms).as_ref() == Some(&terms) {
                quotient = multiple;
            }
        }
        if !quotient.is_empty() {
            let quotient = Dim::from_terms(quotient)?;
            let rest = self.try_sub(&quotient.try_mul(divisor)?)?;
            return quotient.try_add(&rest.try_floor_div(divisor)?);
        }
        match Range::of_dim(self).floor_div(divisor_range).as_point() {
            Some(value) => Some(Dim::Fixed(value)),
            None => Dim::from_atom(Atom::FloorDiv(self.clone(), divisor.clone())),
        }
    }

    fn try_extremum(&self, other: &Dim, kind: Extremum) -> Option<Dim> {
        if let (Dim::Fixed(a), Dim::Fixed(b)) = (self, other) {
            return Some(Dim::Fixed(match kind {
                Extremum::Max => *a.max(b),
                Extremum::Min => *a.min(b),
            }));
        }
        if self.either_overflowed(other) {
            return None;
        }
        let operands = |dim: &Dim| match (dim.as_atom(), kind) {
            (Some(Atom::Max(dims)), Extremum::Max) | (Some(Atom::Min(dims)), Extremum::Min) => dims.clone(),
            _ => BTreeSet::from([dim.clone()]),
        };
        let covers = |a: &Dim, b: &Dim| {
            let difference = match kind {
                Extremum::Max => a.try_sub(b),
                Extremum::Min => b.try_sub(a),
            };
            difference.is_some_and(|difference| difference.at_least(0) == Some(true))
        };
        let mut dims = operands(self);
        for dim in operands(other) {
            if !dims.iter().any(|kept| covers(kept, &dim)) {
                dims.retain(|kept| !covers(&dim, kept));
                dims.insert(dim);
            }
        }
        if dims.len() == 1 {
            return dims.pop_first();
        }
        let atom = match kind {
            Extremum::Max => Atom::Max,
            Extremum::Min => Atom::Min,
        };
        (dims.len() <= MAX_OPERANDS).then(|| Dim::from_atom(atom(dims))).flatten()
    }
}

#[derive(Clone, Copy)]
enum Extremum {
    Max,
    Min,
}

impl Expr {
    fn constant(&self) -> i64 {
        self.terms.get(&Monomial::default()).copied().unwrap_or(0)
    }

    /// The greatest common divisor of the coefficients, the constant term excepted.
    fn content_without_constant(&self) -> u64 {
        let terms = self.terms.iter().filter(|(monomial, _)| !monomial.is_constant());
        terms.fold(0, |content, (_, c)| gcd(content, c.unsigned_abs()))
    }
}

/// The product of extents; `None` when it exceeds `usize`.
pub fn element_count(extents: &[usize]) -> Option<usize> {
    if extents.contains(&0) {
        return Some(0);
    }
    extents.iter().try_fold(1usize, |count, extent| count.checked_mul(*extent))
}

impl From<i64> for Dim {
    fn from(value: i64) -> Dim {
        Dim::Fixed(value)
    }
}

impl From<i32> for Dim {
    fn from(value: i32) -> Dim {
        Dim::Fixed(value.into())
    }
}

impl From<usize> for Dim {
    fn from(value: usize) -> Dim {
        i64::try_from(value).map_or_else(|_| Dim::Fixed(i64::MAX) + 1, Dim::Fixed)
    }
}

impl Ord for Dim {
    fn cmp(&self, other: &Dim) -> Ordering {
        match (self, other) {
            (Dim::Fixed(a), Dim::Fixed(b)) => a.cmp(b),
            (Dim::Fixed(_), Dim::Expr(_)) => Ordering::Less,
            (Dim::Expr(_), Dim::Fixed(_)) => Ordering::Greater,
            (Dim::Expr(a), Dim::Expr(b)) if Arc::ptr_eq(a, b) => Ordering::Equal,
            (Dim::Expr(a), Dim::Expr(b)) => a.cmp(b),
        }
    }

    // `a.max(b)` on owned dimensions resolves to these: the structural extremum would be a trap.
    fn max(self, other: Dim) -> Dim {
        Dim::maximum(&self, &other)
    }

    fn min(self, other: Dim) -> Dim {
        Dim::minimum(&self, &other)
    }
}

impl PartialOrd for Dim {
    fn partial_cmp(&self, other: &Dim) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

macro_rules! operator {
    ($trait:ident, $method:ident, $attempt:ident, $name:literal) => {
        impl $trait<&Dim> for &Dim {
            type Output = Dim;
            fn $method(self, rhs: &Dim) -> Dim {
                self.$attempt(rhs)
                    .unwrap_or_else(|| Dim::overflowed($name, self, rhs))
            }
        }
        operator!(@forward $trait, $method, [Dim, Dim], [Dim, &Dim], [&Dim, Dim], [Dim, i64], [&Dim, i64]);
    };
    (@forward $trait:ident, $method:ident, $([$lhs:ty, $rhs:ty]),*) => {
        $(impl $trait<$rhs> for $lhs {
            type Output = Dim;
            fn $method(self, rhs: $rhs) -> Dim {
                let (lhs, rhs): (&Dim, &Dim) = (self.borrow(), &rhs.clone().into());
                lhs.$method(rhs)
            }
        })*
    };
}

operator!(Add, add, try_add, "add");
operator!(Sub, sub, try_sub, "sub");
operator!(Mul, mul, try_mul, "mul");

impl Neg for &Dim {
    type Output = Dim;
    fn neg(self) -> Dim {
        &Dim::Fixed(0) - self
    }
}

impl Neg for Dim {
    type Output = Dim;
    fn neg(self) -> Dim {
        -&self
    }
}
