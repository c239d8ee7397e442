//! Reductions along axes: <https://onnx.ai/onnx/operators/onnx__ReduceSum.html> and its like.

use crate::{
    DType, Data, Dim, Element, Fact, OpError, Tensor, attribute_enum, attributes, match_integer,
    ops::{
        InferCx, Operator, RunCx,
        helpers::{expect_dtype, fold, normalize_axis, optional, required},
        integer::Integer,
        widened,
    },
    scalar::{Field, Scalar},
    sys::Pool,
};

attribute_enum! {
    /// Which reduction.
    pub enum ReduceKind {
        /// `sum x`.
        ReduceSum = "ReduceSum",
        /// `sum x / count`; of integers, rounded towards zero.
        ReduceMean = "ReduceMean",
        /// The largest, NaN if one is; minus infinity or the least integer of none. Booleans too.
        ReduceMax = "ReduceMax",
        /// The smallest, NaN if one is; infinity or the greatest integer of none. Booleans too.
        ReduceMin = "ReduceMin",
        /// `product x`.
        ReduceProd = "ReduceProd",
        /// `sum |x|`.
        ReduceL1 = "ReduceL1",
        /// `sqrt(sum x^2)`.
        ReduceL2 = "ReduceL2",
        /// `ln(sum x)`.
        ReduceLogSum = "ReduceLogSum",
        /// `ln(sum exp(x))`, without overflow.
        ReduceLogSumExp = "ReduceLogSumExp",
        /// `sum x^2`.
        ReduceSumSquare = "ReduceSumSquare",
    }
}

attributes! {
    /// The reduction of operand 0 along the axes that operand 1 (int64, rank 1, optional) lists.
    ///
    /// Sums and products of f32 and narrower types are carried in f64, those of other types in the type itself, in ascending
    /// order of the elements' positions, and rounded once at the end.
    pub struct Reduce {
        /// The reduction.
        pub kind: ReduceKind,
        /// Whether reduced axes stay with size 1.
        pub keepdims: bool,
        /// Whether no listed axes mean none; otherwise they mean all.
        pub noop_with_empty_axes: bool,
    }
}

/// A real number type and the one that its sums are carried in.
pub(crate) trait Accumulate: Scalar + Element {
    /// The type of running sums.
    type Acc: Scalar;
    /// Exactly this value.
    fn widen(self) -> Self::Acc;
    /// The nearest value.
    fn narrow(acc: Self::Acc) -> Self;
}

impl Accumulate for f32 {
    type Acc = f64;
    #[inline(always)]
    fn widen(self) -> f64 {
        self.into()
    }
    #[inline(always)]
    fn narrow(acc: f64) -> f32 {
        acc as f32
    }
}

macro_rules! in_itself {
    ($($t:ty)*) => { $(
        impl Accumulate for $t {
            type Acc = $t;
            #[inline(always)]
            fn widen(self) -> $t {
                self
            }
            #[inline(always)]
            fn narrow(acc: $t) -> $t {
                acc
            }
        }
    )* };
}
in_itself!(f64 Field);

/// Neighbouring axes that are all reduced or all kept, as one.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Run {
    size: usize,
    reduced: bool,
}

fn runs(shape: &[usize], reduced: &[bool]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (&size, &reduced) in shape.iter().zip(reduced).filter(|(s, _)| **s != 1) {
        match runs.last_mut() {
            Some(r) if r.reduced == reduced => r.size *= size,
            _ => runs.push(Run { size, reduced }),
        }
    }
    runs
}

/// Fewer elements than this are not worth a second thread.
const LARGE: usize = 1 << 16;

/// `step(group, .., step(group, init, x0), x1 ..)` over the elements of each group in ascending order: a group is what has the same
/// position along the axes that are not `reduced`; groups are numbered row-major.
pub(crate) fn fold_axes<T: Copy + Sync, A: Clone + Send + Sync>(
    pool: &Pool,
    x: &[T],
    shape: &[usize],
    reduced: &[bool],
    init: A,
    step: impl Fn(usize, &A, T) -> A + Sync,
) -> Vec<A> {
    let runs = runs(shape, reduced);
    let groups: usize = shape.iter().zip(reduced).filter(|(_, r)| !**r).map(|(s, _)| s).product();
    let mut out = vec![init; groups];
    if x.is_empty() {
        return out;
    }
    match runs.split_first() {
        Some((first, rest)) if !first.reduced && pool.threads() > 1 && x.len() >= LARGE => {
            let (block, input) = (groups / first.size, x.len() / first.size);
            let many = first.size.div_ceil(4 * pool.threads()).max(1);
            pool.for_each_chunk(&mut out, block * many, &|i, piece| {
                let leading = Run { size: piece.len() / block, reduced: false };
                let runs: Vec<Run> = [&[leading], rest].concat();
                fold_runs(&x[i * many * input..][..leading.size * input], &runs, piece, i * many * block, &step);
            });
        }
        _ => fold_runs(x, &runs, &mut out, 0, &step),
    }
    out
}

fn fold_runs<T: Copy, A>(
    x: &[T],
    runs: &[Run],
    out: &mut [A],
    first_group: usize,
    step: &impl Fn(usize, &A, T) -> A,
) {
    let Some((inner, outer)) = runs.split_last() else {
        if let ([o], [v]) = (&mut *out, x) {
            *o = step(first_group, o, *v);
        }
        return;
    };
    // Steps of the output along the outer runs.
    let mut steps = vec![0; outer.len()];
    let mut stride = if inner.reduced { 1 } else { inner.size };
    for (s, run) in steps.iter_mut().zip(outer).rev() {
        if !run.reduced {
            *s = stride;
            stride *= run.size;
        }
    }
    let mut index = vec![0; outer.len()];
    let mut at = 0;
    for row in x.chunks_exact(inner.size) {
        if inner.reduced {
            let o = &mut out[at];
            for &v in row {
                *o = step(first_group + at, o, v);
            }
        } else {
            for (j, (o, &v)) in out[at..at + inner.size].iter_mut().zip(row).enumerate() {
                *o = step(first_group + at + j, o, v);
            }
        }
        for ((i, &s), run) in index.iter_mut().zip(&steps).zip(outer).rev() {
            *i += 1;
            at += s;
            if *i < run.size {
                break;
            }
            *i = 0;
            at -= s * run.size;
        }
    }
}

/// The sums along the `reduced` axes.
pub(crate) fn sums<S: Accumulate>(pool: &Pool, x: &[S], shape: &[usize], reduced: &[bool]) -> Vec<S> {
    let acc = fold_axes(pool, x, shape, reduced, S::Acc::ZERO, |_, a, v| a.add(v.widen()));
    acc.into_iter().map(S::narrow).collect()
}

impl Reduce {
    fn takes(&self, dtype: DType) -> bool {
        let extreme = matches!(self.kind, ReduceKind::ReduceMax | ReduceKind::ReduceMin);
        dtype.is_float() || dtype.is_integer() || (extreme && dtype == DType::Bool)
    }

    /// Which axes of a tensor of this rank are reduced.
    fn reduced(&self, axes: Option<&[i64]>, rank: usize) -> Result<Vec<bool>, OpError> {
        let axes = axes.unwrap_or_default();
        if axes.is_empty() {
            return Ok(vec![!self.noop_with_empty_axes; rank]);
        }
        let mut reduced = vec![false; rank];
        for &axis in axes {
            reduced[normalize_axis(axis, rank, "axes")?] = true;
        }
        Ok(reduced)
    }

    fn shape<D: Clone + From<i64>>(&self, shape: &[D], reduced: &[bool]) -> Vec<D> {
        let axes = shape.iter().zip(reduced);
        if self.keepdims {
            axes.map(|(d, &r)| if r { D::from(1) } else { d.clone() }).collect()
        } else {
            axes.filter(|(_, r)| !**r).map(|(d, _)| d.clone()).collect()
        }
    }

    fn reals<S: Accumulate>(&self, x: &[S], shape: &[usize], reduced: &[bool], pool: &Pool) -> Vec<S> {
        use ReduceKind as K;
        let zero = S::Acc::ZERO;
        let log = |a: S::Acc| a.apply("Log", libm::log);
        macro_rules! over {
            ($init:expr, $step:expr) => {
                fold_axes(pool, x, shape, reduced, $init, $step)
            };
        }
        let extreme = |pick: fn(S::Acc, S::Acc) -> S::Acc, of_none: f64| -> Vec<S::Acc> {
            over!(None, |_, a: &Option<S::Acc>, v: S| Some(a.map_or(v.widen(), |a| pick(a, v.widen()))))
                .into_iter()
                .map(|a| a.unwrap_or_else(|| S::Acc::from_f64(of_none)))
                .collect()
        };
        let acc: Vec<S::Acc> = match self.kind {
            K::ReduceSum | K::ReduceMean | K::ReduceLogSum => over!(zero, |_, a, v: S| a.add(v.widen())),
            K::ReduceProd => over!(S::Acc::ONE, |_, a, v: S| a.mul(v.widen())),
            K::ReduceMax => extreme(S::Acc::max, f64::NEG_INFINITY),
            K::ReduceMin => extreme(S::Acc::min, f64::INFINITY),
            K::ReduceL1 => over!(zero, |_, a, v: S| a.add(v.widen().apply("Abs", f64::abs))),
            K::ReduceL2 | K::ReduceSumSquare => over!(zero, |_, a, v: S| a.add(v.widen().mul(v.widen()))),
            K::ReduceLogSumExp => {
                // Natively `max + ln(sum exp(x - max))`; the field has no maximum and needs none.
                let native = S::Acc::ZERO.to_f64().is_some();
                let shift: Vec<S::Acc> = if native {
                    let finite = |m: S::Acc| m.to_f64().is_some_and(f64::is_finite);
                    let max = extreme(S::Acc::max, f64::NEG_INFINITY);
                    max.into_iter().map(|m| if finite(m) { m } else { zero }).collect()
                } else {
                    Vec::new()
                };
                let of = |group: usize| shift.get(group).copied().unwrap_or(zero);
                let sums = over!(zero, |g, a, v: S| a.add(v.widen().sub(of(g)).apply("Exp", libm::exp)));
                return sums.into_iter().enumerate().map(|(g, s)| S::narrow(log(s).add(of(g)))).collect();
            }
        };
        let count = shape.iter().zip(reduced).filter(|(_, r)| **r).map(|(s, _)| s).product::<usize>();
        // ONNX leaves the mean of nothing open; ONNX Runtime gives 0.
        let count = S::Acc::from_f64(count.max(1) as f64);
        let finish = |a: S::Acc| match self.kind {
            K::ReduceMean => a.div(count),
            K::ReduceL2 => a.apply("Sqrt", libm::sqrt),
            K::ReduceLogSum => log(a),
            _ => a,
        };
        acc.into_iter().map(|a| S::narrow(finish(a))).collect()
    }

    fn integers<T: Integer>(&self, x: &[T], shape: &[usize], reduced: &[bool], pool: &Pool) -> Vec<T> {
        use ReduceKind as K;
        macro_rules! over {
            ($init:expr, $step:expr) => {
                fold_axes(pool, x, shape, reduced, $init, $step)
            };
        }
        match self.kind {
            K::ReduceSum => over!(T::ZERO, |_, a, v| a.add(v)),
            K::ReduceProd => over!(T::ONE, |_, a, v| a.mul(v)),
            K::ReduceL1 => over!(T::ZERO, |_, a, v: T| a.add(v.abs())),
            K::ReduceSumSquare => over!(T::ZERO, |_, a, v: T| a.add(v.mul(v))),
            K::ReduceMax => over!(T::from_f64(f64::NEG_INFINITY), |_, a, v| v.max(*a)),
            K::ReduceMin => over!(T::from_f64(f64::INFINITY), |_, a, v| v.min(*a)),
            K::ReduceMean => {
                let count: usize = shape.iter().zip(reduced).filter(|(_, r)| **r).map(|(s, _)| s).product();
                let sums = over!(0i128, |_, a, v: T| a + v.wide());
                sums.into_iter().map(|s| T::wrap_from(s / (count as i128).max(1))).collect()
            }
            K::ReduceL2 | K::ReduceLogSum | K::ReduceLogSumExp => {
                let x: Vec<f64> = x.iter().map(|v| v.to_f64()).collect();
                self.reals(&x, shape, reduced, pool).into_iter().map(T::from_f64).collect()
            }
        }
    }

    /// Sizes of a small known tensor reduced to one number.
    fn dim(&self, dims: &[Dim]) -> Option<Dim> {
        let zero = Dim::from(0);
        match self.kind {
            ReduceKind::ReduceSum => Some(dims.iter().fold(zero, |a, d| a + d)),
            ReduceKind::ReduceProd => Some(Dim::product(dims)),
            ReduceKind::ReduceMax => dims.iter().cloned().reduce(|a, d| a.maximum(&d)),
            ReduceKind::ReduceMin => dims.iter().cloned().reduce(|a, d| a.minimum(&d)),
            _ => None,
        }
        .filter(|d| !d.is_overflow())
    }
}

impl Operator for Reduce {
    family!(Reduce, ReduceKind);

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (x, axes) = (required(inputs, 0, "data")?, optional(inputs, 1));
        expect_dtype(x, 0, "data", "a type that the reduction is defined on", |d| self.takes(d))?;
        if let Some(axes) = axes {
            expect_dtype(axes, 1, "axes", "i64", |d| d == DType::I64)?;
        }
        if let Some(folded) = fold(self, inputs) {
            return Ok(folded);
        }
        let known = match axes {
            None => Some(None),
            Some(a) if a.element_count().as_fixed() == Some(0) => Some(None),
            Some(a) => a.i64s().map(Some),
        };
        if let Some(axes) = known {
            let reduced = self.reduced(axes.as_deref(), x.rank())?;
            let y = Fact::new(x.dtype, self.shape(&x.shape, &reduced));
            if let (1, [true], Some(dims)) = (x.rank(), &reduced[..], x.dims())
                && matches!(x.dtype, DType::I64 | DType::I32)
                && let Some(d) = self.dim(&dims)
            {
                return Ok(vec![y.with_dims(vec![d])]);
            }
            return Ok(vec![y]);
        }
        let count = axes.and_then(|a| a.shape.first()?.as_fixed());
        let rank = match (self.keepdims, count.map(usize::try_from)) {
            (true, _) => x.rank(),
            (false, Some(Ok(n))) => x.rank().saturating_sub(n),
            _ => return Err(OpError::Unsupported("a reduction along a number of axes that only the run knows".into())),
        };
        Ok(vec![Fact::new(x.dtype, (0..rank).map(|_| cx.fresh()).collect::<Vec<_>>())])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        widened(inputs, |inputs| {
            let (x, axes) = (required(inputs, 0, "data")?, optional(inputs, 1));
            let axes = axes
                .map(|a| {
                    let wrong = || OpError::InputType { index: 1, name: "axes", dtype: a.dtype(), expected: "i64" };
                    a.to_i64s().ok_or_else(wrong)
                })
                .transpose()?;
            let reduced = self.reduced(axes.as_deref(), x.rank())?;
            let sizes: Vec<Dim> = self.shape(&x.shape().iter().map(|&n| Dim::from(n)).collect::<Vec<_>>(), &reduced);
            let shape = Fact::new(x.dtype(), sizes).fixed_shape().unwrap_or_default();
            cx.count(&shape)?;
            let wrong = || OpError::InputType { index: 0, name: "data", dtype: x.dtype(), expected: "a number type" };
            let data = match x.data() {
                Data::F32(v) => Element::wrap(self.reals(v, x.shape(), &reduced, cx.pool)),
                Data::F64(v) => Element::wrap(self.reals(v, x.shape(), &reduced, cx.pool)),
                Data::Field(v) => Element::wrap(self.reals(v, x.shape(), &reduced, cx.pool)),
                Data::Bool(v) if self.kind == ReduceKind::ReduceMax => {
                    bool::wrap(fold_axes(cx.pool, v, x.shape(), &reduced, false, |_, a, v| *a || v))
                }
                Data::Bool(v) if self.kind == ReduceKind::ReduceMin => {
                    bool::wrap(fold_axes(cx.pool, v, x.shape(), &reduced, true, |_, a, v| *a && v))
                }
                other => match_integer!(other, v => Element::wrap(self.integers(v, x.shape(), &reduced, cx.pool)), else {
                    return Err(wrong());
                }),
            };
            Ok(vec![Tensor::from_data(shape, data)?])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{close, indices, native, numbers, run};

    fn op(kind: ReduceKind, keepdims: bool) -> Reduce {
        Reduce { kind, keepdims, noop_with_empty_axes: false }
    }

    fn direct(kind: ReduceKind, x: &Tensor, axes: &[usize]) -> Tensor {
        use ReduceKind as K;
        let kept: Vec<usize> = (0..x.rank()).filter(|a| !axes.contains(a)).collect();
        let shape: Vec<usize> = kept.iter().map(|&a| x.shape()[a]).collect();
        let v = x.to_f64s().unwrap();
        let all = indices(x.shape());
        let y = indices(&shape).into_iter().map(|o| {
            let group: Vec<f64> = all
                .iter()
                .zip(&v)
                .filter(|(i, _)| kept.iter().zip(&o).all(|(&a, &j)| i[a] == j))
                .map(|(_, &v)| v)
                .collect();
            let sum = |f: fn(f64) -> f64| group.iter().map(|&x| f(x)).sum::<f64>();
            (match kind {
                K::ReduceSum => sum(|x| x),
                K::ReduceMean => sum(|x| x) / group.len().max(1) as f64,
                K::ReduceMax => group.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                K::ReduceMin => group.iter().copied().fold(f64::INFINITY, f64::min),
                K::ReduceProd => group.iter().product(),
                K::ReduceL1 => sum(f64::abs),
                K::ReduceL2 => sum(|x| x * x).sqrt(),
                K::ReduceLogSum => sum(|x| x).ln(),
                K::ReduceLogSumExp => sum(f64::exp).ln(),
                K::ReduceSumSquare => sum(|x| x * x),
            }) as f32
        });
        Tensor::new(shape, y.collect()).unwrap()
    }

    #[test]
    fn every_reduction_along_every_choice_of_axes() {
        for shape in [&[][..], &[5], &[2, 3, 4], &[2, 1, 3, 2], &[3, 0, 2]] {
            let x = numbers(shape, 3);
            for choice in 0..1usize << shape.len() {
                let axes: Vec<usize> = (0..shape.len()).filter(|a| choice >> a & 1 == 1).collect();
                let list: Vec<i64> = axes.iter().map(|&a| a as i64 - (a as i64 % 2) * shape.len() as i64).collect();
                let all: Vec<usize> = if axes.is_empty() { (0..shape.len()).collect() } else { axes };
                for &kind in ReduceKind::ALL {
                    let y = run(&op(kind, false), &[&x, &Tensor::vector(list.clone())]).unwrap().remove(0);
                    close(&y, &direct(kind, &x, &all), 1e-6);
                    let kept = run(&op(kind, true), &[&x, &Tensor::vector(list.clone())]).unwrap().remove(0);
                    assert_eq!(kept.rank(), x.rank());
                    assert_eq!(format!("{:?}", kept.data()), format!("{:?}", y.data()));
                }
            }
        }
    }

    #[test]
    fn no_axes_integers_and_booleans() {
        let x = Tensor::new([2, 2], vec![1i64, -2, 3, 5]).unwrap();
        let none = Tensor::vector(Vec::<i64>::new());
        let square = Reduce { kind: ReduceKind::ReduceSumSquare, keepdims: true, noop_with_empty_axes: true };
        assert_eq!(run(&square, &[&x, &none]).unwrap()[0].to_i64s().unwrap(), [1, 4, 9, 25]);
        assert_eq!(run(&op(ReduceKind::ReduceMean, false), &[&x]).unwrap()[0], Tensor::scalar(1i64));
        assert_eq!(run(&op(ReduceKind::ReduceL2, false), &[&x]).unwrap()[0], Tensor::scalar(6i64));
        let b = Tensor::new([2, 2], vec![true, false, true, true]).unwrap();
        let axis = Tensor::vector(vec![1i64]);
        assert_eq!(run(&op(ReduceKind::ReduceMin, false), &[&b, &axis]).unwrap()[0].to_i64s().unwrap(), [0, 1]);
        assert!(run(&op(ReduceKind::ReduceSum, false), &[&b]).is_err());
        let max = run(&op(ReduceKind::ReduceMax, false), &[&Tensor::vector(Vec::<i8>::new())]).unwrap();
        assert_eq!(max[0], Tensor::scalar(i8::MIN));
        let mean = run(&op(ReduceKind::ReduceMean, false), &[&Tensor::vector(Vec::<f32>::new())]).unwrap();
        assert_eq!(mean[0], Tensor::scalar(0f32));
        assert!(run(&op(ReduceKind::ReduceSum, false), &[&x, &Tensor::vector(vec![2i64])]).is_err());
    }

    #[test]
    fn threads_change_no_bit() {
        let x = numbers(&[7, 33, 17, 19], 4);
        for axes in [vec![1i64], vec![2, 3], vec![0, 2]] {
            let axes = Tensor::vector(axes);
            let y = |n| {
                op(ReduceKind::ReduceSum, true).run(&[Some(&x), Some(&axes)], &native(&Pool::new(n))).unwrap()
            };
            assert_eq!(y(1), y(3));
        }
    }

    #[test]
    fn a_product_of_sizes() {
        let (h, w) = (Dim::symbol("H"), Dim::symbol("W"));
        let x = Fact::new(DType::I64, vec![Dim::from(2)]).with_dims(vec![h.clone(), w.clone()]);
        let mut fresh = || Dim::symbol("?1");
        let y = op(ReduceKind::ReduceProd, false).infer(&[Some(&x)], &mut InferCx::new(&mut fresh)).unwrap();
        assert_eq!(y[0].dims(), Some(vec![&h * &w]));
        let x = Fact::new(DType::F32, vec![h, w]);
        let axes = Fact::new(DType::I64, vec![Dim::from(1)]);
        let y = op(ReduceKind::ReduceSum, false).infer(&[Some(&x), Some(&axes)], &mut InferCx::new(&mut fresh)).unwrap();
        assert_eq!(y[0].rank(), 1);
    }
}
