//! How large the numbers are that a rule makes of constants: a bound by argument, before anything is computed.
//!
//! A rule combines weights as if they were real numbers. What it builds is evaluated in f64 and rounded to the type of the
//! weights, so it may overflow or vanish there. Every product and every sum is bounded from the largest elements of its factors.
//! Operators that only move elements need no bound: whatever they move stays what it is, infinities included.

use std::collections::BTreeMap;

use convc_runtime::{
    Constant, DType, Dim, Fact, Op,
    ops::{InferCx, binary::BinaryKind, pad::PadMode, reduce::ReduceKind, unary::UnaryKind},
};

use super::{
    elements::takes_from_first,
    verdict::Verdict,
    view::{Class, Expr, View},
};

/// The largest absolute value among the elements of a floating-point constant, infinite if one of them is no finite number.
/// `None` for other types.
#[must_use]
pub fn largest_of(constant: &Constant) -> Option<f64> {
    let bytes = constant.bytes().as_bytes();
    // Without its sign, a number's bits are in the order of its absolute value; infinities and NaN come last.
    let narrow = || bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]) & 0x7fff).max().unwrap_or(0);
    let value = match constant.dtype() {
        DType::F32 => {
            let words = bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) & 0x7fff_ffff);
            f64::from(f32::from_bits(words.max().unwrap_or(0)))
        }
        DType::F64 => {
            let words = bytes.chunks_exact(8).filter_map(|b| b.try_into().ok().map(u64::from_le_bytes));
            f64::from_bits(words.map(|w| w & (u64::MAX >> 1)).max().unwrap_or(0))
        }
        DType::F16 => half::f16::from_bits(narrow()).to_f64(),
        DType::BF16 => half::bf16::from_bits(narrow()).to_f64(),
        _ => return None,
    };
    Some(if value.is_finite() { value } else { f64::INFINITY })
}

/// The numbers that a type holds.
struct Range {
    /// The largest.
    most: f64,
    /// The smallest that has all its digits.
    least: f64,
    /// A factor above this leaves so little of the range that the model itself may have overflowed behind it.
    factor: f64,
}

impl Range {
    fn of(dtype: DType) -> Option<Range> {
        let power = |e: i32| 2f64.powi(e);
        Some(match dtype {
            DType::F32 | DType::BF16 => Range { most: power(127), least: power(-126), factor: power(63) },
            DType::F64 => Range { most: power(1023), least: power(-1022), factor: power(511) },
            DType::F16 => Range { most: power(15), least: power(-14), factor: power(12) },
            _ => return None,
        })
    }
}

/// Why there is no bound, or why it is too large.
type Bound = Result<f64, Verdict>;

fn unknown(why: impl Into<String>) -> Verdict {
    Verdict::Unknown(why.into())
}

/// Whether every number that `term` computes from constants is a finite one of its type and none of its factors is so large that
/// the model may overflow where the term does not. Terms that are in the view already are not asked about.
#[must_use]
pub fn finite_weights(view: &dyn View, term: &Expr) -> Verdict {
    let mut bounds = Bounds { view, known: BTreeMap::new() };
    match bounds.check(term) {
        Ok(()) => Verdict::Holds,
        Err(verdict) => verdict,
    }
}

/// How deep a bound is looked for.
const DEPTH: usize = 64;

struct Bounds<'a> {
    view: &'a dyn View,
    known: BTreeMap<Class, Option<f64>>,
}

impl Bounds<'_> {
    /// Checks the largest constant parts of a term.
    fn check(&mut self, term: &Expr) -> Result<(), Verdict> {
        let Expr::Op(op, operands) = term else { return Ok(()) };
        if self.is_constant(term) {
            return if computes(op) || operands.iter().flatten().any(|o| self.computes_within(o)) {
                self.bound(term, DEPTH).map(|_| ())
            } else {
                Ok(())
            };
        }
        operands.iter().flatten().try_for_each(|o| self.check(o))
    }

    fn computes_within(&self, term: &Expr) -> bool {
        match term {
            Expr::Op(op, operands) => computes(op) || operands.iter().flatten().any(|o| self.computes_within(o)),
            Expr::Class(_) | Expr::Constant(_) => false,
        }
    }

    fn is_constant(&self, term: &Expr) -> bool {
        match term {
            Expr::Class(c) => self.view.is_constant(*c),
            Expr::Constant(_) => true,
            Expr::Op(_, operands) => operands.iter().flatten().all(|o| self.is_constant(o)),
        }
    }

    fn fact(&self, term: &Expr) -> Option<Fact> {
        match term {
            Expr::Class(c) => self.view.fact(*c).cloned(),
            Expr::Constant(c) if c.len() <= Fact::MAX_KNOWN => c.to_tensor().ok().map(|t| Fact::of(&t)),
            Expr::Constant(c) => Some(Fact::fixed(c.dtype(), c.shape())),
            Expr::Op(op, operands) => {
                let facts: Vec<Option<Fact>> = operands
                    .iter()
                    .map(|o| o.as_ref().map_or(Some(None), |o| self.fact(o).map(Some)))
                    .collect::<Option<_>>()?;
                let refs: Vec<Option<&Fact>> = facts.iter().map(Option::as_ref).collect();
                let mut fresh = || Dim::symbol("?magnitude");
                op.infer(&refs, &mut InferCx::new(&mut fresh)).ok()?.into_iter().next()
            }
        }
    }

    /// The largest absolute value of a constant term. Operators that are new in the term are checked on the way.
    fn bound(&mut self, term: &Expr, depth: usize) -> Bound {
        match term {
            Expr::Constant(c) => largest_of(c).ok_or_else(|| unknown("a constant has no real numbers")),
            Expr::Class(c) => match self.of_class(*c, depth) {
                Some(v) if v.is_finite() => Ok(v),
                Some(_) => Err(Verdict::Fails("a constant holds an infinity or NaN".into())),
                None => Err(unknown("how large a constant is is not known")),
            },
            Expr::Op(op, operands) => {
                let bound = self.of_op(op, operands, depth)?;
                let dtype = self.fact(term).map(|f| f.dtype);
                let Some(range) = dtype.and_then(Range::of) else { return Err(unknown("a type is not known")) };
                if bound > range.most {
                    return Err(Verdict::Fails(format!("a weight may become {bound:.1e}, which overflows its type")));
                }
                if let Some([a, b]) = self.factors(op, operands, depth)? {
                    let own = |o: &Option<Expr>| matches!(o, Some(Expr::Constant(_)));
                    if let Some(f) = [a, b].into_iter().find(|f| *f > range.factor) {
                        return Err(Verdict::Fails(format!(
                            "behind a factor of {f:.1e} the model itself may overflow"
                        )));
                    }
                    if a > 0.0 && b > 0.0 && bound < range.least && !operands.iter().any(own) {
                        return Err(Verdict::Fails(format!("the weights may vanish: none is above {bound:.1e}")));
                    }
                }
                Ok(bound)
            }
        }
    }

    /// The largest absolute value of a class that is there already, over its members whose bound is known: whichever of them a
    /// proof spells out has no larger one.
    fn of_class(&mut self, class: Class, depth: usize) -> Option<f64> {
        if let Some(known) = self.known.get(&class) {
            return *known;
        }
        let depth = depth.checked_sub(1)?;
        // A class that is made of itself says nothing new.
        self.known.insert(class, None);
        let mut bound = self.view.largest(class);
        for app in self.view.apps(class) {
            let operands: Vec<Option<Expr>> = app.operands.iter().map(|o| o.map(Expr::Class)).collect();
            if let Ok(b) = self.of_op(app.op, &operands, depth) {
                bound = Some(bound.map_or(b, |x| x.max(b)));
            }
        }
        self.known.insert(class, bound);
        bound
    }

    /// The factors of a product or sum of products.
    fn factors(&mut self, op: &Op, operands: &[Option<Expr>], depth: usize) -> Result<Option<[f64; 2]>, Verdict> {
        let (a, b) = (operands.first().cloned().flatten(), operands.get(1).cloned().flatten());
        let products = match op {
            Op::Binary(b) => b.kind == BinaryKind::Mul,
            Op::Conv(_) | Op::ConvTranspose(_) | Op::MatMul(_) | Op::Gemm(_) | Op::Einsum(_) => true,
            _ => false,
        };
        match (products, a, b) {
            (true, Some(a), Some(b)) => Ok(Some([self.bound(&a, depth)?, self.bound(&b, depth)?])),
            _ => Ok(None),
        }
    }

    fn of_op(&mut self, op: &Op, operands: &[Option<Expr>], depth: usize) -> Bound {
        let depth = depth.checked_sub(1).ok_or_else(|| unknown("a term is too deep"))?;
        let at = |i: usize| operands.get(i).and_then(Option::as_ref).ok_or_else(|| unknown("an operand is missing"));
        let size = |s: &Self, e: &Expr, axis: usize| -> Bound {
            let n = s.fact(e).and_then(|f| f.shape.get(axis)?.as_fixed());
            n.map(|n| n as f64).ok_or_else(|| unknown("a size is not known"))
        };
        let taps = |s: &Self, e: &Expr| -> Bound {
            let n = s.fact(e).and_then(|f| f.shape.get(2..)?.iter().map(Dim::as_fixed).product::<Option<i64>>());
            n.map(|n| n as f64).ok_or_else(|| unknown("a size is not known"))
        };
        match op {
            Op::Binary(b) => match b.kind {
                BinaryKind::Add | BinaryKind::Sub => Ok(self.bound(at(0)?, depth)? + self.bound(at(1)?, depth)?),
                BinaryKind::Mul => Ok(self.bound(at(0)?, depth)? * self.bound(at(1)?, depth)?),
                BinaryKind::Div => Ok(self.bound(at(0)?, depth)? / self.smallest(at(1)?, depth)?),
                _ => Err(unknown(op.name())),
            },
            Op::Unary(u) => match u.kind {
                UnaryKind::Sqrt => Ok(self.bound(at(0)?, depth)?.sqrt()),
                UnaryKind::Neg | UnaryKind::Abs | UnaryKind::Relu => self.bound(at(0)?, depth),
                _ => Err(unknown(op.name())),
            },
            Op::Reduce(r) => {
                let one = self.bound(at(0)?, depth)?;
                let count = |s: &Self| -> Option<i64> { s.fact(at(0).ok()?)?.element_count().as_fixed() };
                match r.kind {
                    ReduceKind::ReduceSum | ReduceKind::ReduceL1 => {
                        let whole = count(self).ok_or_else(|| unknown("a size is not known"))?;
                        let left = operands.get(1).and_then(Option::as_ref).and_then(|_| {
                            let holes = self.fact(&Expr::op(op.clone(), operands.to_vec()))?;
                            holes.element_count().as_fixed()
                        });
                        Ok(one * (whole / left.unwrap_or(1).max(1)) as f64)
                    }
                    ReduceKind::ReduceMean | ReduceKind::ReduceMax | ReduceKind::ReduceMin => Ok(one),
                    _ => Err(unknown(op.name())),
                }
            }
            Op::Conv(_) => {
                let (x, w) = (at(0)?, at(1)?);
                let count = size(self, w, 1)? * taps(self, w)?;
                let sum = count * self.bound(x, depth)? * self.bound(w, depth)?;
                Ok(sum + operands.get(2).and_then(Option::as_ref).map_or(Ok(0.0), |b| self.bound(b, depth))?)
            }
            Op::ConvTranspose(c) => {
                let (x, w) = (at(0)?, at(1)?);
                let count = size(self, w, 0)? / c.group.max(1) as f64 * taps(self, w)?.min(taps(self, x)?);
                let sum = count * self.bound(x, depth)? * self.bound(w, depth)?;
                Ok(sum + operands.get(2).and_then(Option::as_ref).map_or(Ok(0.0), |b| self.bound(b, depth))?)
            }
            Op::MatMul(_) => {
                let rank = self.fact(at(0)?).map(|f| f.rank()).ok_or_else(|| unknown("a rank is not known"))?;
                let count = size(self, at(0)?, rank.saturating_sub(1))?;
                Ok(count * self.bound(at(0)?, depth)? * self.bound(at(1)?, depth)?)
            }
            Op::Gemm(g) => {
                let count = size(self, at(0)?, usize::from(!g.trans_a))?;
                let sum = count * self.bound(at(0)?, depth)? * self.bound(at(1)?, depth)? * f64::from(g.alpha).abs();
                let c = operands.get(2).and_then(Option::as_ref).map_or(Ok(0.0), |b| self.bound(b, depth))?;
                Ok(sum + c * f64::from(g.beta).abs())
            }
            Op::Einsum(_) => {
                // Each result sums over no more elements than the smaller operand has.
                let count = |e: &Expr| self.fact(e).and_then(|f| f.element_count().as_fixed());
                let n = count(at(0)?).zip(count(at(1)?)).map(|(a, b)| a.min(b) as f64);
                let n = n.ok_or_else(|| unknown("a size is not known"))?;
                Ok(n * self.bound(at(0)?, depth)? * self.bound(at(1)?, depth)?)
            }
            Op::Concat(_) | Op::Where(_) => {
                let first = usize::from(matches!(op, Op::Where(_)));
                let mut most = 0f64;
                for o in operands.iter().skip(first).flatten() {
                    most = most.max(self.bound(o, depth)?);
                }
                Ok(most)
            }
            Op::Pad(p) => {
                let value = match (&p.mode, operands.get(2).and_then(Option::as_ref)) {
                    (PadMode::Constant, Some(v)) => self.bound(v, depth)?,
                    _ => 0.0,
                };
                Ok(self.bound(at(0)?, depth)?.max(value))
            }
            op if takes_from_first(op) => self.bound(at(0)?, depth),
            op => Err(unknown(format!("how large {} makes a number is not known", op.name()))),
        }
    }

    /// The smallest absolute value of a constant term that divides.
    fn smallest(&mut self, term: &Expr, depth: usize) -> Bound {
        let fails = || unknown("how close to 0 a divisor is is not known");
        let elements = |c: &Constant| c.to_tensor().ok().and_then(|t| t.to_f64s()).ok_or_else(fails);
        let of_app = |s: &mut Self, op: &Op, operands: &[Option<Expr>]| -> Bound {
            let depth = depth.checked_sub(1).ok_or_else(fails)?;
            let at = |i: usize| operands.get(i).and_then(Option::as_ref).ok_or_else(fails);
            match op {
                Op::Unary(u) if u.kind == UnaryKind::Sqrt => Ok(s.least(at(0)?, depth)?.max(0.0).sqrt()),
                Op::Binary(b) if b.kind == BinaryKind::Mul => {
                    Ok(s.smallest(at(0)?, depth)? * s.smallest(at(1)?, depth)?)
                }
                Op::Concat(_) => {
                    let mut each = operands.iter().flatten().map(|o| s.smallest(o, depth));
                    each.try_fold(f64::INFINITY, |least, one| Ok(least.min(one?)))
                }
                op if takes_from_first(op) => s.smallest(at(0)?, depth),
                _ => Err(fails()),
            }
        };
        match term {
            Expr::Constant(c) => Ok(elements(c)?.iter().fold(f64::INFINITY, |m, v| m.min(v.abs()))),
            Expr::Op(op, operands) => of_app(self, op, operands),
            Expr::Class(c) => {
                if let Some(c) = self.view.constant(*c) {
                    return Ok(elements(c)?.iter().fold(f64::INFINITY, |m, v| m.min(v.abs())));
                }
                let apps = self.view.apps(*c);
                let mut found = None;
                for app in apps {
                    let operands: Vec<Option<Expr>> = app.operands.iter().map(|o| o.map(Expr::Class)).collect();
                    if let Ok(v) = of_app(self, app.op, &operands) {
                        found = Some(found.map_or(v, |x: f64| x.min(v)));
                    }
                }
                found.ok_or_else(fails)
            }
        }
    }

    /// The least element of a constant term, with its sign.
    fn least(&mut self, term: &Expr, depth: usize) -> Bound {
        let fails = || unknown("how close to 0 a divisor is is not known");
        let depth = depth.checked_sub(1).ok_or_else(fails)?;
        let of = |c: &Constant| -> Bound {
            let v = c.to_tensor().ok().and_then(|t| t.to_f64s()).ok_or_else(fails)?;
            Ok(v.iter().copied().fold(f64::INFINITY, f64::min))
        };
        let of_app = |s: &mut Self, op: &Op, operands: &[Option<Expr>]| -> Bound {
            match (op, operands) {
                (Op::Binary(b), [Some(x), Some(y)]) if b.kind == BinaryKind::Add => {
                    Ok(s.least(x, depth)? + s.least(y, depth)?)
                }
                _ => Err(fails()),
            }
        };
        match term {
            Expr::Constant(c) => of(c),
            Expr::Op(op, operands) => of_app(self, op, operands),
            Expr::Class(c) => {
                if let Some(c) = self.view.constant(*c) {
                    return of(c);
                }
                let found = self.view.apps(*c).into_iter().filter_map(|app| {
                    let operands: Vec<Option<Expr>> = app.operands.iter().map(|o| o.map(Expr::Class)).collect();
                    of_app(self, app.op, &operands).ok()
                });
                found.reduce(f64::min).ok_or_else(fails)
            }
        }
    }
}

/// Whether an operator only puts elements elsewhere, zeros beside them included.
fn moves(op: &Op) -> bool {
    takes_from_first(op) || matches!(op, Op::Concat(_) | Op::Pad(_))
}

/// Whether an operator makes numbers that its operands do not hold, of floating-point ones.
fn computes(op: &Op) -> bool {
    !moves(op) && !matches!(op, Op::Shape(_) | Op::Size(_) | Op::ConstantOfShape(_) | Op::Range(_))
}
