//! The formulas of operators that run along axes: sums, means, softmax.

use convc_runtime::{Op, ops::softmax::SoftmaxKind, scalar::Scalar};

use super::{
    Array, indices,
    ops::{Operands, need},
};

/// One operator of this file.
pub(super) fn apply<S: Scalar>(op: &Op, operands: &Operands<'_, S>) -> Result<Array<S>, String> {
    let x = need(operands, 0)?;
    let rank = x.shape.len() as i64;
    match (op, op.name()) {
        (Op::Reduce(reduce), "ReduceSum" | "ReduceMean") => {
            let axes = match operands.get(1).copied().flatten() {
                Some(a) if !a.ints().is_empty() => a.ints().iter().map(|a| (a + rank) % rank).collect(),
                _ if reduce.noop_with_empty_axes => return Ok(x.clone()),
                _ => (0..rank).collect::<Vec<i64>>(),
            };
            Ok(along(x, &axes, reduce.keepdims, op.name() == "ReduceMean"))
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
    let reduced = |a: usize| axes.contains(&(a as i64));
    let inner: Vec<i64> = x.shape.iter().enumerate().map(|(a, &n)| if reduced(a) { n } else { 1 }).collect();
    let outer: Vec<i64> = x.shape.iter().enumerate().map(|(a, &n)| if reduced(a) { 1 } else { n }).collect();
    let count: i64 = inner.iter().product();
    let at = |o: &Vec<i64>| {
        let sum = indices(&inner).iter().fold(S::ZERO, |sum, i| {
            let index: Vec<i64> = o.iter().zip(i).map(|(o, i)| o + i).collect();
            sum.add(x.at(&index))
        });
        if mean { sum.div(S::from_f64(count as f64)) } else { sum }
    };
    let data = indices(&outer).iter().map(at).collect();
    let kept = outer.iter().enumerate().filter(|(a, _)| keep || !reduced(*a)).map(|(_, n)| *n).collect();
    Array::real(kept, data)
}
