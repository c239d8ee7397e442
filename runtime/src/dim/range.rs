//! Bounds of dimensions: interval arithmetic over their terms.

use super::*;

/// Bounds of a value. A finite bound is at most `LIMIT` in magnitude, so that products fit.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub(super) lower: i128,
    pub(super) upper: i128,
}

pub(super) const INFINITY: i128 = i128::MAX;
pub(super) const LIMIT: i128 = 1 << 63;

impl Range {
    const ALL: Range = Range { lower: -INFINITY, upper: INFINITY };

    pub(super) fn new(lower: i128, upper: i128) -> Range {
        let lower = if lower < -LIMIT { -INFINITY } else { lower };
        let upper = if upper > LIMIT { INFINITY } else { upper };
        Range { lower: lower.min(LIMIT), upper: upper.max(-LIMIT) }
    }

    pub(super) fn point(value: i64) -> Range {
        Range::new(value.into(), value.into())
    }

    pub(super) fn as_point(self) -> Option<i64> {
        let value = i64::try_from(self.lower).ok()?;
        (self.lower == self.upper).then_some(value)
    }

    pub(super) fn contains_zero(self) -> bool {
        self.lower <= 0 && self.upper >= 0
    }

    pub(super) fn intersect(self, other: Range) -> Range {
        Range::new(self.lower.max(other.lower), self.upper.min(other.upper))
    }

    pub(super) fn add(self, other: Range) -> Range {
        Range::new(self.lower.saturating_add(other.lower), self.upper.saturating_add(other.upper))
    }

    /// The hull of an operation monotone in each operand.
    pub(super) fn corners(self, other: Range, operation: fn(i128, i128) -> i128) -> Range {
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

    pub(super) fn mul(self, other: Range) -> Range {
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

    pub(super) fn pow(self, exponent: u32) -> Range {
        let power = (1..exponent).fold(self, |power, _| power.mul(self));
        if exponent.is_multiple_of(2) { Range::new(power.lower.max(0), power.upper) } else { power }
    }

    pub(super) fn floor_div(self, divisor: Range) -> Range {
        if divisor.lower < 1 {
            return Range::ALL;
        }
        self.corners(divisor, |a, b| match () {
            () if b == INFINITY => -i128::from(a < 0),
            () if a.abs() == INFINITY => a,
            () => a.div_euclid(b),
        })
    }

    pub(super) fn of_dim(dim: &Dim) -> Range {
        Range::of_dim_within(dim, &mut RANGE_FUEL.clone())
    }

    pub(super) fn of_dim_within(dim: &Dim, fuel: &mut u32) -> Range {
        match dim {
            Dim::Fixed(value) => Range::point(*value),
            Dim::Expr(expr) => Range::of_terms(&expr.terms, fuel),
        }
    }

    /// The range of an atom; of its excess over its minimum, for a symbol, when `shifted`.
    pub(super) fn of_atom(atom: &Atom, shifted: bool, fuel: &mut u32) -> Range {
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
    pub(super) fn join(ranges: &[Range], choose: fn(i128, i128) -> i128) -> Range {
        let joined =
            ranges.iter().copied().reduce(|a, b| Range::new(choose(a.lower, b.lower), choose(a.upper, b.upper)));
        joined.unwrap_or(Range::ALL)
    }

    pub(super) fn of_sum(terms: &Terms, shifted: bool, fuel: &mut u32) -> Range {
        terms.iter().fold(Range::point(0), |sum, (monomial, coefficient)| {
            let factors = monomial.0.iter();
            sum.add(factors.fold(Range::point(*coefficient), |product, (atom, exponent)| {
                product.mul(Range::of_atom(atom, shifted, fuel).pow(*exponent))
            }))
        })
    }

    pub(super) fn of_terms(terms: &Terms, fuel: &mut u32) -> Range {
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
    pub(super) fn of_linear_atom(terms: &Terms, fuel: &mut u32) -> Option<Range> {
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
pub(super) fn minimum_of(symbol: &str) -> i64 {
    i64::from(!symbol.starts_with('?'))
}

/// Rewrites a polynomial in the excess of every symbol over its minimum: `N*M - N` becomes `n*m + m`.
pub(super) fn shift_symbols(terms: &Terms) -> Option<Terms> {
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
