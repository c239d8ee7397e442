//! Symbolic dimensions: integers, or canonical polynomials over symbols, floored quotients and extrema.
//!
//! Simplification assumes that every symbol is an integer of at least 1, or at least 0 when its name
//! starts with `?` (the extent of a data-dependent result). A simplified expression agrees with the
//! one written wherever the latter is defined; an undefined part (a zero divisor) may cancel out.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::{Add, Mul, Neg, Sub};
use std::str::FromStr;
use std::sync::Arc;

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

/// Bounds of a value. A finite bound is at most `LIMIT` in magnitude, so that products fit.
#[derive(Clone, Copy)]
struct Range {
    lower: i128,
    upper: i128,
}

const INFINITY: i128 = i128::MAX;
const LIMIT: i128 = 1 << 63;

impl Range {
    const ALL: Range = Range { lower: -INFINITY, upper: INFINITY };

    fn new(lower: i128, upper: i128) -> Range {
        let lower = if lower < -LIMIT { -INFINITY } else { lower };
        let upper = if upper > LIMIT { INFINITY } else { upper };
        Range { lower: lower.min(LIMIT), upper: upper.max(-LIMIT) }
    }

    fn point(value: i64) -> Range {
        Range::new(value.into(), value.into())
    }

    fn as_point(self) -> Option<i64> {
        let value = i64::try_from(self.lower).ok()?;
        (self.lower == self.upper).then_some(value)
    }

    fn contains_zero(self) -> bool {
        self.lower <= 0 && self.upper >= 0
    }

    fn intersect(self, other: Range) -> Range {
        Range::new(self.lower.max(other.lower), self.upper.min(other.upper))
    }

    fn add(self, other: Range) -> Range {
        Range::new(self.lower.saturating_add(other.lower), self.upper.saturating_add(other.upper))
    }

    /// The hull of an operation monotone in each operand.
    fn corners(self, other: Range, operation: fn(i128, i128) -> i128) -> Range {
        let first = operation(self.lower, other.lower);
        let corners = [
            operation(self.lower, other.upper),
            operation(self.upper, other.lower),
            operation(self.upper, other.upper),
        ];
        let lower = corners.iter().fold(first, |a, b| a.min(*b));
        let upper = corners.iter().fold(first, |a, b| a.max(*b));
        Range::new(lower, upper)
    }

    fn mul(self, other: Range) -> Range {
        self.corners(other, |a, b| {
            if a == 0 || b == 0 {
                0
            } else if a.abs() == INFINITY || b.abs() == INFINITY {
                INFINITY * a.signum() * b.signum()
            } else {
                a * b
            }
        })
    }

    fn pow(self, exponent: u32) -> Range {
        let power = (1..exponent).fold(self, |power, _| power.mul(self));
        if exponent.is_multiple_of(2) { Range::new(power.lower.max(0), power.upper) } else { power }
    }

    fn floor_div(self, divisor: Range) -> Range {
        if divisor.lower < 1 {
            return Range::ALL;
        }
        self.corners(divisor, |a, b| match () {
            () if b == INFINITY => -i128::from(a < 0),
            () if a.abs() == INFINITY => a,
            () => a.div_euclid(b),
        })
    }

    fn of_dim(dim: &Dim) -> Range {
        Range::of_dim_within(dim, &mut RANGE_FUEL.clone())
    }

    fn of_dim_within(dim: &Dim, fuel: &mut u32) -> Range {
        match dim {
            Dim::Fixed(value) => Range::point(*value),
            Dim::Expr(expr) => Range::of_terms(&expr.terms, fuel),
        }
    }

    /// The range of an atom; of its excess over its minimum, for a symbol, when `shifted`.
    fn of_atom(atom: &Atom, shifted: bool, fuel: &mut u32) -> Range {
        let mut ranges =
            |dims: &BTreeSet<Dim>| -> Vec<Range> { dims.iter().map(|dim| Range::of_dim_within(dim, fuel)).collect() };
        match atom {
            Atom::Symbol(_) if shifted => Range::new(0, INFINITY),
            Atom::Symbol(symbol) => Range::new(minimum_of(symbol).into(), INFINITY),
            Atom::FloorDiv(numerator, denominator) => {
                let numerator = Range::of_dim_within(numerator, fuel);
                numerator.floor_div(Range::of_dim_within(denominator, fuel))
            }
            Atom::Max(dims) => Range::join(&ranges(dims), i128::max),
            Atom::Min(dims) => Range::join(&ranges(dims), i128::min),
            Atom::Overflow(_) => Range::ALL,
        }
    }

    /// Chooses among the lower bounds and among the upper bounds.
    fn join(ranges: &[Range], choose: fn(i128, i128) -> i128) -> Range {
        let joined =
            ranges.iter().copied().reduce(|a, b| Range::new(choose(a.lower, b.lower), choose(a.upper, b.upper)));
        joined.unwrap_or(Range::ALL)
    }

    fn of_sum(terms: &Terms, shifted: bool, fuel: &mut u32) -> Range {
        terms.iter().fold(Range::point(0), |sum, (monomial, coefficient)| {
            let factors = monomial.0.iter();
            sum.add(factors.fold(Range::point(*coefficient), |product, (atom, exponent)| {
                product.mul(Range::of_atom(atom, shifted, fuel).pow(*exponent))
            }))
        })
    }

    fn of_terms(terms: &Terms, fuel: &mut u32) -> Range {
        let mut range = Range::of_sum(terms, false, fuel);
        if terms.len() < 2 {
            return range;
        }
        let nonlinear = terms.keys().any(|m| m.0.iter().map(|(_, e)| *e).sum::<u32>() > 1);
        if nonlinear
            && terms.values().any(|c| *c < 0)
            && let Some(shifted) = shift_symbols(terms)
        {
            range = range.intersect(Range::of_sum(&shifted, true, fuel));
        }
        if let Some(split) = Range::of_linear_atom(terms, fuel) {
            range = range.intersect(split);
        }
        range
    }

    /// Replaces a quotient or an extremum that occurs linearly by what defines it, since it may be
    /// correlated with the other terms: `N - 2*floor(N/2)` lies between 0 and 1.
    fn of_linear_atom(terms: &Terms, fuel: &mut u32) -> Option<Range> {
        let (monomial, atom) = terms.keys().find_map(|monomial| match monomial.as_atom()? {
            Atom::FloorDiv(_, Dim::Fixed(divisor)) if *divisor < 1 => None,
            atom @ (Atom::FloorDiv(_, Dim::Fixed(_)) | Atom::Max(_) | Atom::Min(_)) => Some((monomial, atom)),
            _ => None,
        })?;
        let mut others = terms.clone();
        let coefficient = others.remove(monomial)?;
        match atom {
            Atom::FloorDiv(numerator, Dim::Fixed(divisor)) => {
                *fuel = fuel.checked_sub(1)?;
                let mut scaled = map_terms(&others, |monomial, c| Some((monomial.clone(), c.checked_mul(*divisor)?)))?;
                add_scaled(&mut scaled, numerator, coefficient)?;
                let remainder = Range::new(0, i128::from(*divisor) - 1);
                let range = Range::of_terms(&scaled, fuel).add(remainder.mul(Range::point(coefficient.checked_neg()?)));
                let divide = |bound: i128| match bound.abs() {
                    INFINITY => bound,
                    _ => bound.div_euclid((*divisor).into()),
                };
                Some(Range::new(-divide(-range.lower), divide(range.upper)))
            }
            Atom::Max(dims) | Atom::Min(dims) => {
                let mut cases = Vec::with_capacity(dims.len());
                for dim in dims {
                    *fuel = fuel.checked_sub(1)?;
                    let mut case = others.clone();
                    add_scaled(&mut case, dim, coefficient)?;
                    cases.push(Range::of_terms(&case, fuel));
                }
                let largest = matches!(atom, Atom::Max(_)) == (coefficient > 0);
                Some(Range::join(&cases, if largest { i128::max } else { i128::min }))
            }
            _ => None,
        }
    }
}

/// The least value a symbol may have.
fn minimum_of(symbol: &str) -> i64 {
    i64::from(!symbol.starts_with('?'))
}

/// Rewrites a polynomial in the excess of every symbol over its minimum: `N*M - N` becomes `n*m + m`.
fn shift_symbols(terms: &Terms) -> Option<Terms> {
    let mut shifted = Terms::new();
    for (monomial, coefficient) in terms {
        let mut product = Terms::from([(Monomial::default(), *coefficient)]);
        for (atom, exponent) in &monomial.0 {
            let mut factor = Terms::from([(Monomial::atom(atom.clone()), 1)]);
            if let Atom::Symbol(symbol) = atom {
                add_term(&mut factor, Monomial::default(), minimum_of(symbol))?;
            }
            for _ in 0..*exponent {
                product = mul_terms(&product, &factor)?;
            }
        }
        for (monomial, coefficient) in product {
            add_term(&mut shifted, monomial, coefficient)?;
        }
    }
    Some(shifted)
}

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
struct Parser<'a> {
    text: &'a str,
    offset: usize,
}

impl<'a> Parser<'a> {
    fn error(&self, expected: &'static str) -> ParseDimError {
        ParseDimError { offset: self.offset, expected }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.offset..).unwrap_or("")
    }

    fn peek(&mut self) -> Option<char> {
        let rest = self.rest();
        self.offset += rest.len() - rest.trim_start().len();
        self.rest().chars().next()
    }

    fn accept(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.offset += wanted.len_utf8();
        }
        found
    }

    fn expect(&mut self, wanted: char, name: &'static str) -> Result<(), ParseDimError> {
        match self.accept(wanted) {
            true => Ok(()),
            false => Err(self.error(name)),
        }
    }

    fn take_while(&mut self, accepts: fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.find(|c| !accepts(c)).unwrap_or(rest.len());
        self.offset += length;
        rest.get(..length).unwrap_or("")
    }

    fn nested(&self, depth: u32) -> Result<u32, ParseDimError> {
        match depth < MAX_DEPTH {
            true => Ok(depth + 1),
            false => Err(self.error("at most 64 levels of nesting")),
        }
    }

    fn sum(&mut self, depth: u32) -> Result<Dim, ParseDimError> {
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

    fn product(&mut self, depth: u32, operand: bool, negative: bool) -> Result<Dim, ParseDimError> {
        let mut product = self.factor(depth, operand, negative)?;
        while self.accept('*') {
            product = product * self.factor(depth, operand, false)?;
        }
        Ok(product)
    }

    /// The parentheses of an `operand` of a quotient do not count as another level, so that every
    /// expression within `MAX_DEPTH` can be read back.
    fn factor(&mut self, depth: u32, operand: bool, negative: bool) -> Result<Dim, ParseDimError> {
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

    fn call(&mut self, name: &str, start: usize, depth: u32) -> Result<Dim, ParseDimError> {
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

    fn number(&mut self, negative: bool) -> Result<Dim, ParseDimError> {
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

    fn quoted(&mut self) -> Result<String, ParseDimError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn dim(text: &str) -> Dim {
        Dim::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[track_caller]
    fn simplifies(text: &str, expected: &str) {
        assert_eq!(dim(text).to_string(), expected, "{text}");
        assert_eq!(dim(expected), dim(text), "{expected}");
    }

    #[test]
    fn polynomials_are_canonical() {
        simplifies("1 + N + N", "2*N + 1");
        simplifies("(N + 1)*(N - 1)", "N*N - 1");
        simplifies("(N + M)*(N - M) + M*M - N*N", "0");
        simplifies("-N + 2", "-N + 2");
        assert_eq!(Dim::symbol("N") - 3 + 3, Dim::symbol("N"));
        assert_eq!(Dim::product([dim("N"), dim("3"), dim("2")]), dim("6*N"));
        assert_eq!(Dim::product(&[] as &[Dim]), Dim::fixed(1));
    }

    #[test]
    fn quotients_simplify() {
        simplifies("floor((4*N + 2*M + 3)/2)", "M + 2*N + 1");
        simplifies("floor(N/1)", "N");
        simplifies("floor(N*C*H*W/(H*W))", "C*N");
        simplifies("floor(N*H*W/(2*H*W))", "floor(N/2)");
        simplifies("floor((N*H + N*W)/(H + W))", "floor((H*N + N*W)/(H + W))");
        simplifies("floor((6*H + 6*W)/(2*H + 2*W))", "3");
        simplifies("floor(floor(N/3)/4)", "floor(N/12)");
        simplifies("floor((floor((H - 1)/2) + 1 - 1)/2) + 1", "floor((H + 3)/4)");
        simplifies("floor((N - 2*floor(N/2))/2)", "0");
        simplifies("floor(1/(N + 1))", "0");
        simplifies("floor(N/'?K')", "floor(N/'?K')");
        simplifies("floor(N*'?K'/'?K')", "floor('?K'*N/'?K')");
        simplifies("floor(-7/2)", "-4");
        simplifies("ceil(-7/2)", "-3");
        simplifies("mod(2*N + 5, 2)", "1");
    }

    #[test]
    fn roundings_up_and_down_coincide() {
        assert_eq!(dim("ceil(H/2)"), dim("floor((H - 1)/2) + 1"));
        assert_eq!(dim("-floor(-H/2)"), dim("ceil(H/2)"));
        assert_eq!(dim("floor(H/(-2))"), dim("-ceil(H/2)"));
    }

    #[test]
    fn extrema_simplify() {
        simplifies("max(N, 1)", "N");
        simplifies("max('?K', 1)", "max(1, '?K')");
        simplifies("min(N + 1, N)", "N");
        simplifies("max(N, max(M, N))", "max(M, N)");
        simplifies("max(N)", "N");
        simplifies("max(0, min(N, 5))", "min(5, N)");
        let (a, b) = (dim("N"), dim("M"));
        assert_eq!(Ord::max(a.clone(), b.clone()), Dim::maximum(&a, &b));
        assert_eq!(Ord::min(a.clone(), b.clone()), Dim::minimum(&a, &b));
    }

    #[test]
    fn comparisons_use_the_domain_of_symbols() {
        assert_eq!(dim("N").equals(&dim("N")), Some(true));
        assert_eq!(dim("N").equals(&dim("N + 1")), Some(false));
        assert_eq!(dim("N").equals(&dim("M")), None);
        assert_eq!(dim("N + M").equals(&dim("1")), Some(false));
        assert_eq!(dim("2*N").equals(&dim("2*M + 1")), Some(false));
        assert_eq!(dim("N").at_least(1), Some(true));
        assert_eq!(dim("N").at_least(2), None);
        assert_eq!(dim("'?K'").at_least(1), None);
        assert_eq!(dim("-N").at_least(0), Some(false));
        assert_eq!(dim("N*M - N").lower_bound(), Some(0));
        assert_eq!(dim("N - min(N, M)").lower_bound(), Some(0));
        assert_eq!(dim("mod(N, 4)").lower_bound(), Some(0));
        assert_eq!(dim("mod(N, 4)").upper_bound(), Some(3));
        assert_eq!(dim("N").upper_bound(), None);
        assert_eq!(dim("4*N + 2").divisible_by(2), Some(true));
        assert_eq!(dim("4*N + 2").divisible_by(4), Some(false));
        assert_eq!(dim("N").divisible_by(2), None);
        assert_eq!(dim("6").divisible_by(4), Some(false));
        assert_eq!(dim("6").divisible_by(0), None);
    }

    #[test]
    fn evaluation_reports_failures() {
        let bindings = Bindings::from([("N".into(), 7)]);
        assert_eq!(dim("floor(N/2)*N").eval(&bindings), Ok(21));
        let unbound = DimError::UnboundSymbol("M".into());
        assert_eq!(dim("N + M").eval(&bindings), Err(unbound));
        for zero in ["floor(N/0)", "floor(5/0)", "mod(N, 0)", "floor(1/(N - 7))"] {
            assert_eq!(dim(zero).eval(&bindings), Err(DimError::DivisionByZero));
        }
        let large = Dim::fixed(i64::MAX) * dim("N");
        assert_eq!(large.eval(&bindings), Err(DimError::Overflow));
    }

    #[test]
    fn overflow_absorbs_and_stays_distinct() {
        let overflow = Dim::fixed(i64::MAX) + 1;
        assert!(overflow.is_overflow());
        assert_eq!(overflow.eval(&Bindings::new()), Err(DimError::Overflow));
        assert_ne!(&overflow + 1, overflow);
        assert_ne!(&overflow - &overflow, Dim::fixed(0));
        assert!((&overflow * Dim::fixed(0)).is_overflow());
        assert!((dim("N") - &overflow).is_overflow());
        assert_eq!(overflow.equals(&Dim::fixed(1)), None);
        assert_eq!(dim(&overflow.to_string()), overflow);
        let mut product = dim("N + M + K + 1");
        for _ in 0..12 {
            product = &product * &product;
        }
        assert!(product.is_overflow());
        assert_eq!(dim(&product.to_string()), product);
        assert!(Dim::fixed(i64::MIN).floor_div(&Dim::fixed(-1)).is_overflow());
        assert!(dim("N").floor_div(&Dim::fixed(i64::MIN)).is_overflow());
    }

    #[test]
    fn substitution_simplifies_again() {
        let values = BTreeMap::from([("N".into(), dim("2*M")), ("M".into(), dim("N"))]);
        assert_eq!(dim("floor(N/2) + M").substitute(&values), dim("M + N"));
        let values = BTreeMap::from([("N".into(), dim("9"))]);
        assert_eq!(dim("max(N, M)").substitute(&values), dim("max(9, M)"));
        assert_eq!(dim("floor(N/2)*N").substitute(&values), dim("36"));
        let symbols = dim("floor(N/M) + max(K, N) - N").symbols();
        assert_eq!(symbols, ["K", "M", "N"].map(Symbol::from).into());
    }

    #[test]
    fn texts_round_trip() {
        for symbol in ["batch size", "it's", "a\\b", "", "7", "?K", "max", "é-1"] {
            let symbol = Dim::symbol(symbol);
            assert_eq!(dim(&symbol.to_string()), symbol);
        }
        assert_eq!(dim(&i64::MIN.to_string()), Dim::fixed(i64::MIN));
        let least = Dim::fixed(i64::MIN) * dim("N") + i64::MIN;
        assert_eq!(dim(&least.to_string()), least);
        let mut nested = dim("N");
        for divisor in 0..MAX_DEPTH {
            nested = (nested * 3 + i64::from(divisor % 2)).floor_div(&dim("M + 1"));
        }
        assert!(!nested.is_overflow());
        assert_eq!(dim(&nested.to_string()), nested);
    }

    #[test]
    fn malformed_texts_are_errors() {
        for text in [
            "",
            "N +",
            "2 N",
            "(N",
            "N)",
            "floor(N)",
            "floor(N/)",
            "max()",
            "sin(N)",
            "'N",
            "N/2",
            "99999999999999999999",
            "overflow(N)",
            "mod(N)",
            "é",
            "'\\",
        ] {
            assert!(Dim::parse(text).is_err(), "{text}");
        }
        for open in ["(", "floor(", "max(", "-(", "floor(("] {
            assert!(Dim::parse(&open.repeat(10_000)).is_err());
        }
        assert!(Dim::parse(&"N".repeat(MAX_TEXT + 1)).is_err());
        let wide = (0..9_000).map(|i| format!("a{i}")).collect::<Vec<_>>();
        assert!(dim(&wide.join("+")).is_overflow());
        let hostile = ["max(", &wide.join(","), ")"].concat();
        assert!(Dim::parse(&hostile).is_ok());
        assert!(Dim::parse(&"(a+b+c+d)*".repeat(6_000)).is_err());
    }

    #[test]
    fn element_counts_are_checked() {
        assert_eq!(element_count(&[]), Some(1));
        assert_eq!(element_count(&[2, 3]), Some(6));
        assert_eq!(element_count(&[usize::MAX, 2]), None);
        assert_eq!(element_count(&[usize::MAX, 2, 0]), Some(0));
    }
}

#[cfg(test)]
mod properties {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Tree {
        Constant(i64),
        Symbol(&'static str),
        Node(Operation, Box<Tree>, Box<Tree>),
    }

    #[derive(Clone, Copy, Debug)]
    enum Operation {
        Add,
        Sub,
        Mul,
        Floor,
        Ceil,
        Rem,
        Max,
        Min,
    }

    const SYMBOLS: [&str; 4] = ["N", "H", "in put", "?K"];

    impl Tree {
        fn build(&self) -> Dim {
            match self {
                Tree::Constant(value) => Dim::fixed(*value),
                Tree::Symbol(symbol) => Dim::symbol(*symbol),
                Tree::Node(operation, a, b) => {
                    let (a, b) = (a.build(), b.build());
                    match operation {
                        Operation::Add => a + b,
                        Operation::Sub => a - b,
                        Operation::Mul => a * b,
                        Operation::Floor => a.floor_div(&b),
                        Operation::Ceil => a.ceil_div(&b),
                        Operation::Rem => a.rem_floor(&b),
                        Operation::Max => Dim::maximum(&a, &b),
                        Operation::Min => Dim::minimum(&a, &b),
                    }
                }
            }
        }

        fn eval(&self, bindings: &Bindings) -> Option<i128> {
            match self {
                Tree::Constant(value) => Some((*value).into()),
                Tree::Symbol(symbol) => bindings.get(*symbol).map(|value| (*value).into()),
                Tree::Node(operation, a, b) => {
                    let (a, b) = (a.eval(bindings)?, b.eval(bindings)?);
                    match operation {
                        Operation::Add => a.checked_add(b),
                        Operation::Sub => a.checked_sub(b),
                        Operation::Mul => a.checked_mul(b),
                        Operation::Floor => floor_quotient(a, b),
                        Operation::Ceil => floor_quotient(-a, b).map(|quotient| -quotient),
                        Operation::Rem => Some(a - b * floor_quotient(a, b)?),
                        Operation::Max => Some(a.max(b)),
                        Operation::Min => Some(a.min(b)),
                    }
                }
            }
        }
    }

    fn trees() -> impl Strategy<Value = Tree> {
        let leaf = prop_oneof![
            (-6i64..=6).prop_map(Tree::Constant),
            prop::sample::select(&SYMBOLS[..]).prop_map(Tree::Symbol),
        ];
        let operation = prop::sample::select(vec![
            Operation::Add,
            Operation::Sub,
            Operation::Mul,
            Operation::Floor,
            Operation::Ceil,
            Operation::Rem,
            Operation::Max,
            Operation::Min,
        ]);
        leaf.prop_recursive(5, 24, 2, move |inner| {
            (operation.clone(), inner.clone(), inner)
                .prop_map(|(operation, a, b)| Tree::Node(operation, a.into(), b.into()))
        })
    }

    fn bindings() -> impl Strategy<Value = Bindings> {
        prop::array::uniform4(prop_oneof![0i64..5, 0i64..200]).prop_map(|values| {
            let symbols = SYMBOLS.iter().zip(values);
            symbols.map(|(symbol, value)| ((*symbol).into(), value.max(minimum_of(symbol)))).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn simplification_keeps_values(tree in trees(), bindings in bindings()) {
            if let Some(expected) = tree.eval(&bindings) {
                match tree.build().eval(&bindings) {
                    Ok(value) => prop_assert_eq!(i128::from(value), expected),
                    Err(error) => prop_assert!(
                        tree.build().is_overflow() || i64::try_from(expected).is_err(),
                        "{} in {}", error, tree.build()
                    ),
                }
            }
        }

        #[test]
        fn display_parses_back(tree in trees()) {
            let dim = tree.build();
            prop_assert_eq!(Dim::parse(&dim.to_string()), Ok(dim));
        }

        #[test]
        fn verdicts_hold(a in trees(), b in trees(), bindings in bindings(), bound in -9i64..9) {
            let (left, right) = (a.build(), b.build());
            let (Some(x), Some(y)) = (a.eval(&bindings), b.eval(&bindings)) else {
                return Ok(());
            };
            if let Some(verdict) = left.equals(&right) {
                prop_assert_eq!(verdict, x == y, "{} = {}", left, right);
            }
            if let Some(verdict) = left.at_least(bound) {
                prop_assert_eq!(verdict, x >= bound.into(), "{} >= {}", left, bound);
            }
            if let Some(verdict) = left.divisible_by(bound) {
                prop_assert_eq!(verdict, x % i128::from(bound) == 0, "{} % {}", left, bound);
            }
            prop_assert!(left.lower_bound().is_none_or(|lower| i128::from(lower) <= x), "{}", left);
            prop_assert!(left.upper_bound().is_none_or(|upper| i128::from(upper) >= x), "{}", left);
        }

        #[test]
        fn substitution_is_composition(
            tree in trees(), value in trees(), bindings in bindings(),
        ) {
            let (dim, value) = (tree.build(), value.build());
            let substituted = dim.substitute(&BTreeMap::from([("N".into(), value.clone())]));
            // Simplification relies on the symbol being positive.
            let Some(bound) = value.eval(&bindings).ok().filter(|bound| *bound >= 1) else {
                return Ok(());
            };
            let mut extended = bindings.clone();
            extended.insert("N".into(), bound);
            if let (Ok(a), Ok(b)) = (dim.eval(&extended), substituted.eval(&bindings)) {
                prop_assert_eq!(a, b, "{} in {}", value, dim);
            }
        }

        #[test]
        fn parsing_never_panics(text in "[-+*/(),'NK?0-9 ]{0,40}|(floor|max|mod|min|ceil|[(),/*+-]|N|0|3){0,30}") {
            if let Ok(dim) = Dim::parse(&text) {
                prop_assert_eq!(Dim::parse(&dim.to_string()), Ok(dim));
            }
        }
    }
}
