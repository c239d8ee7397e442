//! Repetition: [Expand](https://onnx.ai/onnx/operators/onnx__Expand.html) and [Tile](https://onnx.ai/onnx/operators/onnx__Tile.html).

use crate::{
    Dim, Fact, OpError, Tensor, attributes,
    match_any,
    ops::{
        InferCx, Operator, RunCx,
        copy::{Layout, strides, view},
        helpers::{broadcast, required},
        known::{dims, ints, list_length, listed, propagate, sizes, value_error},
        
    },
};

attributes! {
    /// `input` broadcast with a tensor of the sizes that `shape` (a list of i64) names.
    pub struct Expand {}
}

fn expanded(x: &[Dim], target: &[Dim]) -> Result<Vec<Dim>, OpError> {
    match target.iter().find(|d| d.at_least(0) == Some(false)) {
        Some(d) => Err(value_error(1, "shape", format!("{d} is not a size"))),
        None => broadcast(&[x, target]),
    }
}

impl Operator for Expand {
    single!(Expand, "Expand");

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (x, target) = (required(inputs, 0, "input")?, required(inputs, 1, "shape")?);
        let known = target.dims().is_some();
        let target = listed(target, 1, "shape", cx)?;
        let mut shape = expanded(&x.shape, &target)?;
        if !known {
            // An unknown target may hold 1, where the size stays, or 0, where that of `x` is 1.
            let first = shape.len() - target.len();
            shape[first..].iter_mut().for_each(|d| *d = cx.fresh());
        }
        Ok(propagate(self, inputs, |i| i == 0, vec![Fact::new(x.dtype, shape)]))
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, target) = (required(inputs, 0, "input")?, required(inputs, 1, "shape")?);
        let target: Vec<Dim> = ints(target, 1, "shape")?.into_iter().map(Dim::from).collect();
        let shape = sizes(&expanded(&dims(x.shape()), &target)?, cx)?;
        if shape == x.shape() {
            return Ok(vec![x.clone()]);
        }
        let mut steps = vec![0; shape.len()];
        let first = shape.len() - x.rank();
        for (i, s) in strides(x.shape()).into_iter().enumerate() {
            steps[first + i] = if x.shape()[i] == 1 { 0 } else { s };
        }
        let from = Layout { offset: 0, strides: &steps };
        match_any!(x.data(), v => Ok(vec![Tensor::new(shape.clone(), view(v, from, &shape, cx.pool))?]))
    }
}

attributes! {
    /// `input` repeated `repeats[i]` times along each axis `i`.
    pub struct Tile {}
}

fn repeated(x: &[Dim], repeats: &[Dim]) -> Result<Vec<Dim>, OpError> {
    if x.len() != repeats.len() {
        return Err(value_error(1, "repeats", format!("{} entries for {} axes", repeats.len(), x.len())));
    }
    match repeats.iter().find(|d| d.at_least(0) == Some(false)) {
        Some(d) => Err(value_error(1, "repeats", format!("{d} repetitions"))),
        None => Ok(x.iter().zip(repeats).map(|(d, r)| d * r).collect()),
    }
}

impl Operator for Tile {
    single!(Tile, "Tile");

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (x, repeats) = (required(inputs, 0, "input")?, required(inputs, 1, "repeats")?);
        let shape = match repeats.dims() {
            Some(r) => repeated(&x.shape, &r)?,
            None => {
                // The list is as long as the rank, whatever its declared length.
                crate::ops::known::expect_list(repeats, 1, "repeats")?;
                if list_length(repeats, 1, "repeats").is_ok_and(|n| n != x.rank()) {
                    return Err(value_error(1, "repeats", format!("the list is not as long as the rank, {}", x.rank())));
                }
                x.shape.iter().map(|_| cx.fresh()).collect()
            }
        };
        Ok(propagate(self, inputs, |i| i == 0, vec![Fact::new(x.dtype, shape)]))
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, repeats) = (required(inputs, 0, "input")?, required(inputs, 1, "repeats")?);
        let repeats: Vec<Dim> = ints(repeats, 1, "repeats")?.into_iter().map(Dim::from).collect();
        let shape = sizes(&repeated(&dims(x.shape()), &repeats)?, cx)?;
        // Each axis becomes two: the repetition, along which the source stands still, and the axis itself.
        let (mut split, mut steps) = (Vec::new(), Vec::new());
        for ((r, &n), s) in sizes_of(&repeats)?.into_iter().zip(x.shape()).zip(strides(x.shape())) {
            split.extend([r, n]);
            steps.extend([0, s]);
        }
        let from = Layout { offset: 0, strides: &steps };
        match_any!(x.data(), v => Ok(vec![Tensor::new(shape, view(v, from, &split, cx.pool))?]))
    }
}

fn sizes_of(repeats: &[Dim]) -> Result<Vec<usize>, OpError> {
    repeats
        .iter()
        .map(|d| d.as_fixed().and_then(|n| usize::try_from(n).ok()))
        .collect::<Option<_>>()
        .ok_or_else(|| value_error(1, "repeats", "a negative number of repetitions"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::movement::{Random, checked, gathered, infer, run};

    fn list(v: &[usize]) -> Tensor {
        Tensor::vector(v.iter().map(|&n| n as i64).collect())
    }

    #[test]
    fn expand_agrees_with_indexing() {
        let mut random = Random::new(23);
        for _ in 0..200 {
            let out = random.shape(5, 4);
            let cut = random.below(out.len() + 1);
            let shape: Vec<usize> = out[cut..].iter().map(|&n| if random.chance() { 1 } else { n }).collect();
            let x = random.tensor(&shape);
            // The target may be shorter than the result where it adds nothing, and 1 where the size stays.
            let mut target: Vec<usize> =
                out.iter().enumerate().map(|(i, &n)| if i >= cut && shape[i - cut] == n && random.chance() { 1 } else { n }).collect();
            while target.first() == Some(&1) && target.len() > 1 && cut == 0 {
                target.remove(0);
            }
            let expected = gathered(&x, &out, |i| i[cut..].iter().zip(&shape).map(|(&i, &n)| if n == 1 { 0 } else { i }).collect());
            assert_eq!(checked(&Expand {}, &[Some(&x), Some(&list(&target))], &[]).remove(0), expected);
        }
        let x = Tensor::vector(vec![1.0f32; 3]);
        for bad in [vec![2], vec![-1], vec![i64::MAX, 1], vec![1 << 40, 1 << 40, 3]] {
            assert!(run(&Expand {}, &[Some(&x), Some(&Tensor::vector(bad))]).is_err());
        }
        assert!(infer(&Expand {}, &[Some(&Fact::of(&x)), Some(&Fact::fixed(crate::DType::I64, &[3]))]).is_ok());
    }

    #[test]
    fn tile_agrees_with_indexing() {
        let mut random = Random::new(29);
        for _ in 0..200 {
            let shape = random.shape(4, 4);
            let x = random.tensor(&shape);
            let repeats: Vec<usize> = shape.iter().map(|_| random.below(4)).collect();
            let out: Vec<usize> = shape.iter().zip(&repeats).map(|(n, r)| n * r).collect();
            let expected = gathered(&x, &out, |i| i.iter().zip(&shape).map(|(i, n)| i % n).collect());
            assert_eq!(checked(&Tile {}, &[Some(&x), Some(&list(&repeats))], &[0]).remove(0), expected);
        }
        let x = Tensor::vector(vec![1.0f32; 3]);
        for bad in [vec![], vec![1, 1], vec![-1], vec![i64::MAX], vec![1 << 40]] {
            assert!(run(&Tile {}, &[Some(&x), Some(&Tensor::vector(bad))]).is_err());
        }
    }
}
