//! Gathering element by element and by multi-index: [GatherElements](https://onnx.ai/onnx/operators/onnx__GatherElements.html)
//! and [GatherND](https://onnx.ai/onnx/operators/onnx__GatherND.html).

use crate::{
    Dim, Fact, OpError, Tensor, attributes, match_any,
    ops::{
        InferCx, Operator, RunCx,
        copy::strides,
        gather::{expect_index, front},
        helpers::{normalize_axis, required},
        known::{dims, ints, propagate, shape_error},
    },
};

attributes! {
    /// `y[i] = data[i with indices[i] at axis]`: the result has the shape of `indices`, which has the rank of `data` and along
    /// the other axes at most its sizes. Indices are i32 or i64, negative ones count from the back.
    pub struct GatherElements {
        /// The axis, counted from the back if negative.
        pub axis: i64,
    }
}

/// Checks the shape of indices that name one element each along `axis`.
pub(crate) fn check_elements(x: &[Dim], indices: &[Dim], axis: usize) -> Result<(), OpError> {
    if indices.len() != x.len() {
        return Err(shape_error(1, "indices", indices, format!("{} dimensions are needed", x.len())));
    }
    for (i, (d, n)) in x.iter().zip(indices).enumerate() {
        if i != axis && (d - n).at_least(0) == Some(false) {
            return Err(shape_error(1, "indices", indices, format!("at most {d} is possible at axis {i}")));
        }
    }
    Ok(())
}

/// For each element of `indices`, in order, the position in a tensor of sizes `x` that it names.
pub(crate) fn element_positions(x: &[usize], indices: &Tensor, axis: usize) -> Result<Vec<usize>, OpError> {
    let steps: Vec<usize> = strides(x).into_iter().map(|s| s as usize).collect();
    let at = ints(indices, 1, "indices")?;
    let shape = indices.shape();
    let last = shape.len().saturating_sub(1);
    let inner = shape.last().copied().unwrap_or(1);
    let step = usize::from(last != axis);
    let mut positions = Vec::with_capacity(at.len());
    let mut index = vec![0; last];
    let mut base = 0;
    for row in at.chunks(inner.max(1)) {
        for (j, &i) in row.iter().enumerate() {
            positions.push(base + front(i, x[axis], 1, "indices")? * steps[axis] + j * step);
        }
        for a in (0..last).rev() {
            let stride = if a == axis { 0 } else { steps[a] };
            index[a] += 1;
            base += stride;
            if index[a] < shape[a] {
                break;
            }
            base -= stride * shape[a];
            index[a] = 0;
        }
    }
    Ok(positions)
}

impl Operator for GatherElements {
    single!(GatherElements, "GatherElements");

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (x, indices) = (required(inputs, 0, "data")?, required(inputs, 1, "indices")?);
        let axis = normalize_axis(self.axis, x.rank(), "axis")?;
        expect_index(indices, 1, "indices")?;
        check_elements(&x.shape, &indices.shape, axis)?;
        Ok(propagate(self, inputs, |i| i == 0, vec![Fact::new(x.dtype, indices.shape.clone())]))
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, indices) = (required(inputs, 0, "data")?, required(inputs, 1, "indices")?);
        let axis = normalize_axis(self.axis, x.rank(), "axis")?;
        check_elements(&dims(x.shape()), &dims(indices.shape()), axis)?;
        cx.count(indices.shape())?;
        let at = element_positions(x.shape(), indices, axis)?;
        match_any!(x.data(), v => {
            Ok(vec![Tensor::new(indices.shape(), at.iter().map(|&p| v[p].clone()).collect::<Vec<_>>())?])
        })
    }
}

attributes! {
    /// `y[b.., i.., ..] = data[b.., indices[b.., i.., :], ..]`: the last axis of `indices` (i64) holds multi-indices into the axes
    /// of `data` behind the first `batch_dims`, which both share.
    pub struct GatherND {
        /// Number of leading axes that both operands share.
        pub batch_dims: i64,
    }
}

/// Checks that `indices` can name slices of a tensor of sizes `x` behind its first `batch` axes (at most its rank); returns
/// how many axes each multi-index speaks of.
pub(crate) fn check_slices(x: &[Dim], indices: &[Dim], batch: usize) -> Result<usize, OpError> {
    let Some((k, outer)) = indices.split_last() else {
        return Err(shape_error(1, "indices", indices, "at least one dimension is needed"));
    };
    let Some(k) = k.as_fixed() else {
        return Err(OpError::Unsupported(format!("multi-indices of {k} numbers")));
    };
    let most = x.len() - batch;
    let k = usize::try_from(k).ok().filter(|&k| k <= most);
    let k = k.ok_or_else(|| shape_error(1, "indices", indices, format!("at most {most} numbers can name a slice")))?;
    for (i, d) in outer.iter().take(batch).enumerate() {
        if d.equals(&x[i]) == Some(false) {
            return Err(shape_error(1, "indices", indices, format!("{} is needed at axis {i}", x[i])));
        }
    }
    Ok(k)
}

/// For each multi-index, in order, where the slice it names begins in a tensor of sizes `x`.
pub(crate) fn slice_positions(x: &[usize], indices: &Tensor, batch: usize, k: usize) -> Result<Vec<usize>, OpError> {
    let steps = strides(x);
    let at = ints(indices, 1, "indices")?;
    let count: usize = indices.shape().split_last().map_or(1, |(_, outer)| outer.iter().product());
    let batches: usize = x[..batch].iter().product();
    let per_batch = count.checked_div(batches).unwrap_or(0);
    let batch_size: usize = x[batch..].iter().product();
    let one = |i: usize| {
        let mut p = i.checked_div(per_batch).unwrap_or(0) * batch_size;
        for j in 0..k {
            p += front(at[i * k + j], x[batch + j], 1, "indices")? * steps[batch + j] as usize;
        }
        Ok(p)
    };
    (0..count).map(one).collect()
}

impl GatherND {
    fn batch(&self, x: usize, indices: usize) -> Result<usize, OpError> {
        match usize::try_from(self.batch_dims) {
            Ok(b) if b < x.min(indices) => Ok(b),
            _ => Err(OpError::Attribute {
                name: "batch_dims",
                problem: format!("{} is not below the ranks {x} and {indices}", self.batch_dims),
            }),
        }
    }
}

impl Operator for GatherND {
    single!(GatherND, "GatherND");

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (x, indices) = (required(inputs, 0, "data")?, required(inputs, 1, "indices")?);
        expect_index(indices, 1, "indices")?;
        let batch = self.batch(x.rank(), indices.rank())?;
        let k = check_slices(&x.shape, &indices.shape, batch)?;
        let shape = [&indices.shape[..indices.rank() - 1], &x.shape[batch + k..]].concat();
        Ok(propagate(self, inputs, |i| i == 0, vec![Fact::new(x.dtype, shape)]))
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, indices) = (required(inputs, 0, "data")?, required(inputs, 1, "indices")?);
        let batch = self.batch(x.rank(), indices.rank())?;
        let k = check_slices(&dims(x.shape()), &dims(indices.shape()), batch)?;
        let shape = [&indices.shape()[..indices.rank() - 1], &x.shape()[batch + k..]].concat();
        let count = cx.count(&shape)?;
        // Multi-indices of no numbers could be many more than the elements they name.
        cx.count(&indices.shape()[..indices.rank() - 1])?;
        let at = slice_positions(x.shape(), indices, batch, k)?;
        let run: usize = x.shape()[batch + k..].iter().product();
        match_any!(x.data(), v => {
            let mut out = Vec::with_capacity(count);
            at.iter().for_each(|&p| out.extend_from_slice(&v[p..p + run]));
            Ok(vec![Tensor::new(shape, out)?])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::movement::{Random, checked, gathered, ravel, run};

    #[test]
    fn elements_agree_with_indexing() {
        let mut random = Random::new(43);
        for _ in 0..200 {
            let rank = 1 + random.below(4);
            let mut shape = random.shape_of(rank, 4);
            let axis = random.below(rank);
            shape[axis] += 1;
            let x = random.tensor(&shape);
            let mut ishape: Vec<usize> = shape.iter().map(|&n| random.below(n + 1)).collect();
            ishape[axis] = random.below(5);
            let n: usize = ishape.iter().product();
            let picks: Vec<usize> = (0..n).map(|_| random.below(shape[axis])).collect();
            let list: Vec<i64> = picks.iter().map(|&p| random.signed(p, shape[axis])).collect();
            let indices = Tensor::new(ishape.clone(), list).unwrap();
            let expected = gathered(&x, &ishape, |i| {
                let mut source = i.to_vec();
                source[axis] = picks[ravel(i, &ishape)];
                source
            });
            let op = GatherElements { axis: random.signed(axis, rank) };
            assert_eq!(checked(&op, &[Some(&x), Some(&indices)], &[0]).remove(0), expected);
        }
        let x = Tensor::vector(vec![1.0f32; 3]);
        for bad in [3, -4, i64::MIN] {
            assert!(run(&GatherElements { axis: 0 }, &[Some(&x), Some(&Tensor::vector(vec![bad]))]).is_err());
        }
        assert!(run(&GatherElements { axis: 0 }, &[Some(&x), Some(&Tensor::scalar(0i64))]).is_err());
    }

    #[test]
    fn slices_agree_with_indexing() {
        let mut random = Random::new(47);
        for _ in 0..200 {
            let rank = 1 + random.below(4);
            let shape: Vec<usize> = (0..rank).map(|_| 1 + random.below(4)).collect();
            let x = random.tensor(&shape);
            let batch = random.below(rank);
            let k = random.below(rank - batch + 1);
            let extra = random.shape(2, 3);
            let outer = [&shape[..batch], &extra].concat();
            let n: usize = outer.iter().product();
            let (mut picks, mut list) = (Vec::new(), Vec::new());
            for _ in 0..n {
                let pick: Vec<usize> = (0..k).map(|j| random.below(shape[batch + j])).collect();
                pick.iter().enumerate().for_each(|(j, &i)| list.push(random.signed(i, shape[batch + j])));
                picks.push(pick);
            }
            let indices = Tensor::new([&outer[..], &[k]].concat(), list).unwrap();
            let sizes = [&outer[..], &shape[batch + k..]].concat();
            let expected = gathered(&x, &sizes, |i| {
                let (o, rest) = i.split_at(outer.len());
                [&o[..batch], &picks[ravel(o, &outer)], rest].concat()
            });
            let op = GatherND { batch_dims: batch as i64 };
            assert_eq!(checked(&op, &[Some(&x), Some(&indices)], &[0]).remove(0), expected);
        }
        let x = Tensor::new([2, 2], vec![1.0f32; 4]).unwrap();
        let go = |batch_dims, shape: &[usize], v: &[i64]| {
            run(&GatherND { batch_dims }, &[Some(&x), Some(&Tensor::new(shape, v.to_vec()).unwrap())])
        };
        assert!(go(0, &[1, 2], &[0, 2]).is_err() && go(0, &[1, 3], &[0, 0, 0]).is_err() && go(0, &[], &[0]).is_err());
        assert!(go(1, &[3, 1], &[0, 0, 0]).is_err() && go(2, &[2, 2, 1], &[0; 4]).is_err() && go(-1, &[1], &[0]).is_err());
        assert!(go(0, &[1 << 40, 0], &[]).is_err());
    }
}
