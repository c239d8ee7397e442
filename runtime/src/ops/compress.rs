//! Sizes that the data decide: [NonZero](https://onnx.ai/onnx/operators/onnx__NonZero.html) and
//! [Compress](https://onnx.ai/onnx/operators/onnx__Compress.html).

use crate::{
    DType, Dim, Element, Fact, OpError, Tensor, attributes, match_any,
    ops::{
        InferCx, Operator, RunCx,
        helpers::{elements, expect_dtype, normalize_axis, required},
        known::{dims, known_tensor, run_small, shape_error},
    },
};

/// What a run says if all inputs are known, else `fact`.
fn known_or<O: Operator>(op: &O, inputs: &[Option<&Fact>], fact: impl FnOnce() -> Fact) -> Vec<Fact> {
    let known: Option<Vec<Tensor>> = inputs.iter().map(|f| f.and_then(known_tensor)).collect();
    let results = known.and_then(|k| run_small(op, &k.iter().map(Some).collect::<Vec<_>>()));
    results.map_or_else(|| vec![fact()], |r| r.iter().map(Fact::of).collect())
}

attributes! {
    /// The multi-indices of the elements that are not 0, row-major, one a column: `[rank, n]` of i64.
    pub struct NonZero {}
}

impl Operator for NonZero {
    single!(NonZero, "NonZero");

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "X")?;
        Ok(known_or(self, inputs, || Fact::new(DType::I64, [Dim::from(x.rank()), cx.fresh()])))
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        fn positions<T: Element>(v: &[T]) -> Vec<usize> {
            let zero = T::default();
            v.iter().enumerate().filter(|(_, x)| **x != zero).map(|(i, _)| i).collect()
        }
        let x = required(inputs, 0, "X")?;
        let at = match_any!(x.data(), v => positions(v));
        let shape = [x.rank(), at.len()];
        let mut y = Vec::with_capacity(cx.count(&shape)?);
        let mut step = x.len();
        for &n in x.shape() {
            step /= n.max(1);
            y.extend(at.iter().map(|&p| (p / step.max(1) % n.max(1)) as i64));
        }
        Ok(vec![Tensor::new(shape, y)?])
    }
}

attributes! {
    /// The slices of `input` along `axis` for which `condition` (a list of booleans, which may be shorter) holds; without `axis`,
    /// elements of the flattened `input`.
    pub struct Compress {
        /// The axis, counted from the back if negative.
        pub axis: Option<i64>,
    }
}

impl Compress {
    fn axis(&self, rank: usize) -> Result<Option<usize>, OpError> {
        self.axis.map(|a| normalize_axis(a, rank, "axis")).transpose()
    }
}

impl Operator for Compress {
    single!(Compress, "Compress");

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (x, c) = (required(inputs, 0, "input")?, required(inputs, 1, "condition")?);
        expect_dtype(c, 1, "condition", "bool", |d| d == DType::Bool)?;
        if c.rank() != 1 {
            return Err(shape_error(1, "condition", &c.shape, "a list is needed"));
        }
        let axis = self.axis(x.rank())?;
        Ok(known_or(self, inputs, || {
            let mut shape = x.shape.clone();
            match axis {
                Some(a) => shape[a] = cx.fresh(),
                None => shape = vec![cx.fresh()],
            }
            Fact::new(x.dtype, shape)
        }))
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, c) = (required(inputs, 0, "input")?, required(inputs, 1, "condition")?);
        if c.rank() != 1 {
            return Err(shape_error(1, "condition", &dims(c.shape()), "a list is needed"));
        }
        let (mut shape, axis) = match self.axis(x.rank())? {
            Some(a) => (x.shape().to_vec(), a),
            None => (vec![x.len()], 0),
        };
        let (size, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
        let chosen = elements::<bool>(c, 1, "condition")?.iter().take(size).enumerate();
        let chosen: Vec<usize> = chosen.filter(|(_, c)| **c).map(|(i, _)| i).collect();
        shape[axis] = chosen.len();
        let count = cx.count(&shape)?;
        match_any!(x.data(), v => {
            let mut y = Vec::with_capacity(count);
            for block in v.chunks((size * inner).max(1)) {
                chosen.iter().for_each(|&i| y.extend_from_slice(&block[i * inner..(i + 1) * inner]));
            }
            Ok(vec![Tensor::new(shape, y)?])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::movement::{Random, checked, gathered, run, unravel};

    #[test]
    fn nonzero_lists_indices() {
        let mut random = Random::new(79);
        for _ in 0..100 {
            let shape = random.shape(4, 4);
            let n: usize = shape.iter().product();
            let v: Vec<f32> = (0..n).map(|_| [0.0, -0.0, 1.5, f32::NAN][random.below(4)]).collect();
            let x = Tensor::new(shape.clone(), v.clone()).unwrap();
            let at: Vec<Vec<usize>> = (0..n).filter(|&k| v[k] != 0.0).map(|k| unravel(k, &shape)).collect();
            let expected: Vec<i64> = (0..shape.len()).flat_map(|a| at.iter().map(move |i| i[a] as i64)).collect();
            let y = checked(&NonZero {}, &[Some(&x)], &[]).remove(0);
            assert_eq!(y, Tensor::new([shape.len(), at.len()], expected).unwrap());
        }
    }

    #[test]
    fn compress_agrees_with_indexing() {
        let mut random = Random::new(83);
        for _ in 0..200 {
            let rank = 1 + random.below(3);
            let shape = random.shape_of(rank, 4);
            let axis = random.below(rank);
            let flat = random.chance();
            let x = random.tensor(&shape);
            let size = if flat { x.len() } else { shape[axis] };
            let c: Vec<bool> = (0..random.below(size + 2)).map(|_| random.chance()).collect();
            let chosen: Vec<usize> = (0..size.min(c.len())).filter(|&i| c[i]).collect();
            let op = Compress { axis: (!flat).then(|| random.signed(axis, rank)) };
            let y = checked(&op, &[Some(&x), Some(&Tensor::vector(c))], &[]).remove(0);
            let mut sizes = shape.clone();
            sizes[axis] = chosen.len();
            let expected = if flat {
                gathered(&x, &[chosen.len()], |i| unravel(chosen[i[0]], &shape))
            } else {
                gathered(&x, &sizes, |i| {
                    let mut i = i.to_vec();
                    i[axis] = chosen[i[axis]];
                    i
                })
            };
            assert_eq!(y, expected);
        }
        let x = Tensor::vector(vec![1.0f32; 2]);
        assert!(run(&Compress { axis: None }, &[Some(&x), Some(&x)]).is_err());
        assert!(run(&Compress { axis: Some(1) }, &[Some(&x), Some(&Tensor::vector(vec![true]))]).is_err());
        assert!(run(&Compress { axis: None }, &[Some(&x), Some(&Tensor::scalar(true))]).is_err());
        assert_eq!(run(&Compress { axis: None }, &[Some(&Tensor::scalar(1i64)), Some(&Tensor::vector(vec![true]))]).unwrap()[0].len(), 1);
    }
}
