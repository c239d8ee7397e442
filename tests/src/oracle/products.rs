//! The formulas of products that sum over an axis: of matrices, and by letters.

use std::collections::BTreeMap;

use convc_runtime::{Op, scalar::Scalar};

use super::{
    Array, indices,
    ops::{Operands, broadcast, need, pick},
};

/// One operator of this file.
pub(super) fn apply<S: Scalar>(op: &Op, operands: &Operands<'_, S>) -> Result<Array<S>, String> {
    match op {
        Op::MatMul(_) => matmul(need(operands, 0)?, need(operands, 1)?),
        Op::Einsum(op) => einsum(&op.equation, operands),
        other => Err(format!("the oracle has no {}", other.name())),
    }
}

/// `y[.., i, j] = sum over k of a[.., i, k] b[.., k, j]`; a vector is a row on the left and a column on the right.
fn matmul<S: Scalar>(a: &Array<S>, b: &Array<S>) -> Result<Array<S>, String> {
    let (row, column) = (a.shape.len() == 1, b.shape.len() == 1);
    let wide = |x: &Array<S>, at: usize| {
        let mut x = x.clone();
        x.shape.insert(at, 1);
        x
    };
    let (a, b) = (if row { wide(a, 0) } else { a.clone() }, if column { wide(b, 1) } else { b.clone() });
    let ((lead_a, [i, k]), (lead_b, [inner, j])) =
        (a.shape.split_last_chunk::<2>().ok_or("a scalar")?, b.shape.split_last_chunk::<2>().ok_or("a scalar")?);
    if inner != k {
        return Err(format!("{:?} times {:?}", a.shape, b.shape));
    }
    let lead = broadcast(lead_a, lead_b)?;
    let shape: Vec<i64> = lead.iter().copied().chain([*i, *j]).collect();
    let at = |y: &Vec<i64>| {
        let (outer, last) = y.split_at(lead.len());
        let place = |lead: &[i64], at: [i64; 2]| -> Vec<i64> { pick(lead, outer).into_iter().chain(at).collect() };
        (0..*k)
            .fold(S::ZERO, |sum, k| sum.add(a.at(&place(lead_a, [last[0], k])).mul(b.at(&place(lead_b, [k, last[1]])))))
    };
    let data = indices(&shape).iter().map(at).collect();
    let rest = lead.iter().copied().chain((!row).then_some(*i)).chain((!column).then_some(*j)).collect();
    Ok(Array::real(rest, data))
}

/// The sum over every letter that the result lacks of the products of all operands' elements.
fn einsum<S: Scalar>(equation: &str, operands: &Operands<'_, S>) -> Result<Array<S>, String> {
    let text: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, result) = text.split_once("->").ok_or("no result is named")?;
    let names: Vec<Vec<char>> = left.split(',').map(|n| n.chars().collect()).collect();
    let arrays: Vec<&Array<S>> = operands.iter().flatten().copied().collect();
    if names.len() != arrays.len() || text.contains('.') {
        return Err(format!("the oracle does not read {equation}"));
    }
    let mut sizes: BTreeMap<char, i64> = BTreeMap::new();
    for (name, array) in names.iter().zip(&arrays) {
        if name.len() != array.shape.len() {
            return Err(format!("{name:?} of {:?}", array.shape));
        }
        for (&letter, &n) in name.iter().zip(&array.shape) {
            if *sizes.entry(letter).or_insert(n) != n {
                return Err(format!("{letter} has several sizes"));
            }
        }
    }
    let result: Vec<char> = result.chars().collect();
    let summed: Vec<char> = sizes.keys().copied().filter(|c| !result.contains(c)).collect();
    let size = |letters: &[char]| -> Option<Vec<i64>> { letters.iter().map(|c| sizes.get(c).copied()).collect() };
    let (shape, inner) = (size(&result).ok_or("a letter of the result alone")?, size(&summed).unwrap_or_default());
    let at = |y: &Vec<i64>| {
        indices(&inner).iter().fold(S::ZERO, |sum, i| {
            let value = |c: &char| {
                let find = |letters: &[char], at: &[i64]| letters.iter().position(|l| l == c).map(|p| at[p]);
                find(&result, y).or_else(|| find(&summed, i)).unwrap_or(0)
            };
            let factor = |(name, array): (&Vec<char>, &&Array<S>)| {
                let place: Vec<i64> = name.iter().map(value).collect();
                array.at(&place)
            };
            sum.add(names.iter().zip(&arrays).map(factor).fold(S::ONE, |p, f| p.mul(f)))
        })
    };
    let data = indices(&shape).iter().map(at).collect();
    Ok(Array::real(shape, data))
}
