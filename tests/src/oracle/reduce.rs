//! The formulas of operators that run along axes: sums, means, softmax.

use convc_runtime::{
    Op,
    ops::{reduce::ReduceKind, softmax::SoftmaxKind},
    scalar::Scalar,
};

use super::{
    Array, indices,
    ops::{Operands, need},
};

/// One operator of this file.
pub(super) fn apply<S: Scalar>(op: &Op, operands: &Operands<'_, S>) -> Result<Array<S>, String> {
    let x = need(operands, 0)?;
    let rank = x.shape.len() as i64;
    match (op, op.name()) {
        (Op::Reduce(reduce), _) => {
            let axes = match operands.get(1).copied().flatten() {
                Some(a) if !a.ints().is_empty() => a.ints().iter().map(|a| (a + rank) % rank).collect(),
                _ if reduce.noop_with_empty_axes => Vec::new(),
                _ => (0..rank).collect::<Vec<i64>>(),
            };
            reduction(x, &axes, reduce.keepdims, reduce.kind)
        }
        (_, "GlobalAveragePool") => Ok(along(x, &(2..rank).collect::<Vec<i64>>(), true, true)),
        (Op::Softmax(softmax), _) if softmax.kind == SoftmaxKind::Softmax => {
            let axis = (softmax.axis + rank) % rank;
            let axes: Vec<i64> = if softmax.flatten { (axis..rank).collect() } else { vec![axis] };
            let exp = Array::real(x.shape.clone(), x.reals().iter().map(|v| v.apply("Exp", f64::exp)).collect());
            let total = along(&exp, &axes, true, false);
            let at = |i: &Vec<i64>| {
                let sum: Vec<i64> = (0..).zip(i).map(|(a, i)| if axes.contains(&a) { 0 } else { *i }).collect();
                exp.at(i).div(total.at(&sum))
            };
            Ok(Array::real(x.shape.clone(), indices(&x.shape).iter().map(at).collect()))
        }
        (_, name) => Err(format!("the oracle has no {name}")),
    }
}

fn along<S: Scalar>(x: &Array<S>, axes: &[i64], keep: bool, mean: bool) -> Array<S> {
    // ONNX leaves the mean of nothing open; ONNX Runtime gives 0.
    let count = |n: i64| if mean { S::from_f64(n.max(1) as f64) } else { S::ONE };
    gathered(x, axes, keep, S::ZERO, &|sum, v| sum.add(v), &|sum, n| sum.div(count(n)))
}

fn reduction<S: Scalar>(x: &Array<S>, axes: &[i64], keep: bool, kind: ReduceKind) -> Result<Array<S>, String> {
    let infinity = f64::INFINITY;
    let root = |v: S, _: i64| v.apply("Sqrt", f64::sqrt);
    let same = |v: S, _: i64| v;
    let square = |sum: S, v: S| sum.add(v.mul(v));
    Ok(match kind {
        ReduceKind::ReduceSum => along(x, axes, keep, false),
        ReduceKind::ReduceMean => along(x, axes, keep, true),
        ReduceKind::ReduceMax => gathered(x, axes, keep, S::from_f64(-infinity), &|m, v| m.max(v), &same),
        ReduceKind::ReduceMin => gathered(x, axes, keep, S::from_f64(infinity), &|m, v| m.min(v), &same),
        ReduceKind::ReduceProd => gathered(x, axes, keep, S::ONE, &|p, v| p.mul(v), &same),
        ReduceKind::ReduceL1 => gathered(x, axes, keep, S::ZERO, &|sum, v| sum.add(v.apply("Abs", f64::abs)), &same),
        ReduceKind::ReduceL2 => gathered(x, axes, keep, S::ZERO, &square, &root),
        ReduceKind::ReduceSumSquare => gathered(x, axes, keep, S::ZERO, &square, &same),
        ReduceKind::ReduceLogSum | ReduceKind::ReduceLogSumExp => return Err("no logarithms of sums".into()),
    })
}

/// `end(step(.. step(start, x1) .., xn), n)` over the elements along `axes`.
fn gathered<S: Scalar>(
    x: &Array<S>,
    axes: &[i64],
    keep: bool,
    start: S,
    step: &dyn Fn(S, S) -> S,
    end: &dyn Fn(S, i64) -> S,
) -> Array<S> {
    let reduced = |a: usize| axes.contains(&(a as i64));
    let inner: Vec<i64> = x.shape.iter().enumerate().map(|(a, &n)| if reduced(a) { n } else { 1 }).collect();
    let outer: Vec<i64> = x.shape.iter().enumerate().map(|(a, &n)| if reduced(a) { 1 } else { n }).collect();
    let count: i64 = inner.iter().product();
    let at = |o: &Vec<i64>| {
        let all = indices(&inner).iter().fold(start, |all, i| {
            let index: Vec<i64> = o.iter().zip(i).map(|(o, i)| o + i).collect();
            step(all, x.at(&index))
        });
        end(all, count)
    };
    let data = indices(&outer).iter().map(at).collect();
    let kept = outer.iter().enumerate().filter(|(a, _)| keep || !reduced(*a)).map(|(_, n)| *n).collect();
    Array::real(kept, data)
}
