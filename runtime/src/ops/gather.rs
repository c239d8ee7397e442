//! Gathering along one axis: <https://onnx.ai/onnx/operators/onnx__Gather.html>.

use crate::{
    Element, Fact, OpError, Tensor, attributes,
    match_any,
    ops::{
        InferCx, Operator, RunCx,
        helpers::{expect_dtype, normalize_axis, required},
        known::{ints, propagate, value_error},
        
    },
    sys::Pool,
};

attributes! {
    /// `y[a.., i.., b..] = data[a.., indices[i..], b..]` with `indices[i..]` (i32 or i64, negative ones counting from the back)
    /// at position `axis`.
    pub struct Gather {
        /// The axis, counted from the back if negative.
        pub axis: i64,
    }
}

/// Requires i32 or i64.
pub(crate) fn expect_index(fact: &Fact, index: usize, name: &'static str) -> Result<(), OpError> {
    use crate::DType::{I32, I64};
    expect_dtype(fact, index, name, "i32 or i64", |d| matches!(d, I32 | I64))
}

/// `i` counted from the front of an axis of this size.
pub(crate) fn front(i: i64, size: usize, index: usize, name: &'static str) -> Result<usize, OpError> {
    let at = if i < 0 { i.checked_add(size as i64) } else { Some(i) };
    at.and_then(|a| usize::try_from(a).ok())
        .filter(|&a| a < size)
        .ok_or_else(|| value_error(index, name, format!("{i} lies outside an axis of size {size}")))
}

impl Operator for Gather {
    single!(Gather, "Gather");

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (x, indices) = (required(inputs, 0, "data")?, required(inputs, 1, "indices")?);
        let axis = normalize_axis(self.axis, x.rank(), "axis")?;
        expect_index(indices, 1, "indices")?;
        if let (Some(v), Some(n)) = (indices.i64s(), x.shape[axis].as_fixed().and_then(|n| usize::try_from(n).ok())) {
            v.iter().try_for_each(|&i| front(i, n, 1, "indices").map(|_| ()))?;
        }
        let shape = [&x.shape[..axis], &indices.shape, &x.shape[axis + 1..]].concat();
        Ok(propagate(self, inputs, |i| i == 0, vec![Fact::new(x.dtype, shape)]))
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, indices) = (required(inputs, 0, "data")?, required(inputs, 1, "indices")?);
        let axis = normalize_axis(self.axis, x.rank(), "axis")?;
        let size = x.shape()[axis];
        let at: Vec<usize> =
            ints(indices, 1, "indices")?.into_iter().map(|i| front(i, size, 1, "indices")).collect::<Result<_, _>>()?;
        let shape = [&x.shape()[..axis], indices.shape(), &x.shape()[axis + 1..]].concat();
        let count = cx.count(&shape)?;
        let inner: usize = x.shape()[axis + 1..].iter().product();
        match_any!(x.data(), v => Ok(vec![Tensor::new(shape, pick(v, &at, size, inner, count, cx.pool))?]))
    }
}

/// For each block of `size` rows of `inner` elements, the rows `at`; `count` elements in all.
fn pick<T: Element>(v: &[T], at: &[usize], size: usize, inner: usize, count: usize, pool: &Pool) -> Vec<T> {
    if count == 0 {
        return Vec::new();
    }
    if count >= 1 << 16 && inner >= 16 && pool.threads() > 1 {
        let mut out = vec![T::default(); count];
        let rows = (count / inner).div_ceil(4 * pool.threads());
        pool.for_each_chunk(&mut out, rows * inner, &|i, piece| {
            for (r, row) in piece.chunks_exact_mut(inner).enumerate() {
                let k = i * rows + r;
                let from = (k / at.len() * size + at[k % at.len()]) * inner;
                row.clone_from_slice(&v[from..from + inner]);
            }
        });
        return out;
    }
    let mut out = Vec::with_capacity(count);
    for block in v.chunks_exact(size * inner) {
        if inner == 1 {
            out.extend(at.iter().map(|&i| block[i].clone()));
        } else {
            at.iter().for_each(|&i| out.extend_from_slice(&block[i * inner..(i + 1) * inner]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::movement::{Random, checked, gathered, ravel, run};

    #[test]
    fn agrees_with_indexing() {
        let mut random = Random::new(19);
        for case in 0..200 {
            let rank = 1 + random.below(4);
            let big = case % 40 == 0;
            let mut shape = random.shape_of(rank, if big { 18 } else { 4 });
            let axis = random.below(rank);
            shape[axis] += 1;
            let x = random.tensor(&shape);
            let ishape = random.shape(3, if big { 20 } else { 3 });
            let n: usize = ishape.iter().product();
            let picks: Vec<usize> = (0..n).map(|_| random.below(shape[axis])).collect();
            let indices: Vec<i64> = picks.iter().map(|&p| random.signed(p, shape[axis])).collect();
            let indices = if random.chance() {
                Tensor::new(ishape.clone(), indices).unwrap()
            } else {
                Tensor::new(ishape.clone(), indices.iter().map(|&i| i as i32).collect::<Vec<_>>()).unwrap()
            };
            let sizes = [&shape[..axis], &ishape, &shape[axis + 1..]].concat();
            let expected = gathered(&x, &sizes, |i| {
                let (a, rest) = i.split_at(axis);
                let (m, b) = rest.split_at(ishape.len());
                [a, &[picks[ravel(m, &ishape)]], b].concat()
            });
            let op = Gather { axis: random.signed(axis, rank) };
            assert_eq!(checked(&op, &[Some(&x), Some(&indices)], &[0]).remove(0), expected);
        }
    }

    #[test]
    fn threads_do_not_matter() {
        let x = Tensor::new([40, 50, 64], (0..40 * 50 * 64).collect::<Vec<i32>>()).unwrap();
        let at: Vec<i64> = (0..70).map(|i| i * 7 % 50).collect();
        let y = run(&Gather { axis: 1 }, &[Some(&x), Some(&Tensor::vector(at.clone()))]).unwrap().remove(0);
        let expected = gathered(&x, &[40, 70, 64], |i| vec![i[0], at[i[1]] as usize, i[2]]);
        assert_eq!(y, expected);
    }

    #[test]
    fn refuses_what_lies_outside() {
        let x = Tensor::vector(vec![1.0f32; 4]);
        for bad in [4, -5, i64::MAX, i64::MIN] {
            assert!(run(&Gather { axis: 0 }, &[Some(&x), Some(&Tensor::scalar(bad))]).is_err());
        }
        assert!(run(&Gather { axis: 1 }, &[Some(&x), Some(&Tensor::scalar(0i64))]).is_err());
        let s = Tensor::scalar(1.0f32);
        assert!(run(&Gather { axis: 0 }, &[Some(&s), Some(&Tensor::scalar(0i64))]).is_err());
        let empty = Tensor::new([0, 3], Vec::<f32>::new()).unwrap();
        assert!(run(&Gather { axis: 0 }, &[Some(&empty), Some(&Tensor::scalar(0i64))]).is_err());
    }
}
