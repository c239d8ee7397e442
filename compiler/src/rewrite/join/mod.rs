//! The join of two facts about one value, which the e-graph takes when it finds two classes equal.
//!
//! The join is commutative, associative and idempotent, and it goes down in a total order axis by axis and element by
//! element, so that a fact that was given up never comes back and every chain of joins ends. Where both facts say the same
//! in different words, the simpler words are kept: a number before an expression, an expression over the model's symbols
//! before one over sizes that only the data decides, fewer symbols before more, and a shorter text before a longer one.
//! Where the facts exclude each other the join is still defined, and says so.

use std::cmp::Ordering;

use convc_runtime::{DType, Dim, Fact, Tensor, fact::Known};

use super::keys::ConstantKey;

/// How a join compares with what was joined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Joined {
    /// The join says something else than the left fact did.
    pub(crate) left: bool,
    /// The join says something else than the right fact did.
    pub(crate) right: bool,
    /// The two facts exclude each other.
    pub(crate) conflict: bool,
}

impl Joined {
    fn and(&mut self, other: Joined) {
        self.left |= other.left;
        self.right |= other.right;
        self.conflict |= other.conflict;
    }

    /// Of two things in this order the smaller is kept.
    fn kept(order: Ordering) -> Joined {
        Joined { left: order.is_gt(), right: order.is_lt(), conflict: false }
    }
}

/// Makes `a` the join of `a` and `b`.
pub(crate) fn join(a: &mut Option<Fact>, b: Option<Fact>) -> Joined {
    match (a.as_mut(), b) {
        (_, None) => Joined { left: false, right: a.is_some(), conflict: false },
        (None, Some(b)) => {
            *a = Some(b);
            Joined { left: true, right: false, conflict: false }
        }
        (Some(a), Some(b)) => join_facts(a, b),
    }
}

fn join_facts(a: &mut Fact, b: Fact) -> Joined {
    let head = |f: &Fact| (f.dtype.name(), f.rank());
    if head(a) != head(&b) {
        let joined = Joined { conflict: true, ..Joined::kept(head(a).cmp(&head(&b))) };
        if joined.left {
            *a = b;
        }
        return joined;
    }
    let mut joined = join_dims(&mut a.shape, b.shape);
    joined.and(join_known(a.dtype, &mut a.known, b.known));
    joined
}

/// Joins lists of one length.
fn join_dims(a: &mut [Dim], b: Vec<Dim>) -> Joined {
    let mut joined = Joined::default();
    for (x, y) in a.iter_mut().zip(b) {
        let order = simpler(x, &y);
        joined.and(Joined { conflict: order.is_ne() && x.equals(&y) == Some(false), ..Joined::kept(order) });
        if order.is_gt() {
            *x = y;
        }
    }
    joined
}

fn join_known(dtype: DType, a: &mut Option<Known>, b: Option<Known>) -> Joined {
    let joined = match (a.as_mut(), &b) {
        (_, None) => return Joined { left: false, right: a.is_some(), conflict: false },
        (None, Some(_)) => Joined { left: true, right: false, conflict: false },
        (Some(Known::Constant(x)), Some(Known::Constant(y))) => {
            let order = bits(x).cmp(&bits(y));
            // Rules that are exact over the real numbers may round differently.
            Joined { conflict: order.is_ne() && !dtype.is_float(), ..Joined::kept(order) }
        }
        (Some(Known::Constant(_)), Some(Known::Dims(_))) => Joined::kept(Ordering::Less),
        (Some(Known::Dims(_)), Some(Known::Constant(_))) => Joined::kept(Ordering::Greater),
        (Some(Known::Dims(x)), Some(Known::Dims(y))) if x.len() != y.len() => {
            Joined { conflict: true, ..Joined::kept(x.len().cmp(&y.len())) }
        }
        (Some(Known::Dims(x)), Some(Known::Dims(y))) => return join_dims(x, y.clone()),
    };
    if joined.left {
        *a = b;
    }
    joined
}

/// A tensor as a key that tells apart what bits tell apart: two NaNs of the same bits are one, and -0.0 is not 0.0.
fn bits(t: &Tensor) -> String {
    convc_runtime::Constant::from_tensor(t).map_or_else(|_| format!("{t:?}"), |c| ConstantKey::of(&c).to_string())
}

/// A total order of sizes in which the simpler of two expressions of one value comes first.
fn simpler(a: &Dim, b: &Dim) -> Ordering {
    if a == b {
        return Ordering::Equal;
    }
    let key = |d: &Dim| {
        let symbols = d.symbols();
        let of_data = symbols.iter().filter(|s| s.starts_with('?')).count();
        (d.is_overflow(), !d.is_fixed(), of_data, symbols.len(), d.to_string().len())
    };
    key(a).cmp(&key(b)).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests;
