//! Splitting: <https://onnx.ai/onnx/operators/onnx__Split.html>.

use crate::{
    Dim, Fact, OpError, Tensor, attributes,
    match_any,
    ops::{
        InferCx, Operator, RunCx,
        copy::{Layout, strides, view},
        helpers::{normalize_axis, optional, required},
        known::{dims, ints, list_length, propagate, sizes, value_error},
        
    },
};

attributes! {
    /// `input` cut along `axis` into parts of the sizes that `split` (an optional list of i64) names; without it into
    /// `num_outputs` parts of `ceil(size / num_outputs)`, the last one smaller.
    pub struct Split {
        /// The axis, counted from the back if negative.
        pub axis: i64,
        /// Number of parts, also where `split` is given.
        pub num_outputs: i64,
    }
}

impl Split {
    fn parts(&self) -> Result<usize, OpError> {
        match usize::try_from(self.num_outputs) {
            Ok(n) if (1..=1 << 16).contains(&n) => Ok(n),
            _ => Err(OpError::Attribute { name: "num_outputs", problem: format!("{} parts", self.num_outputs) }),
        }
    }

    fn cut(&self, size: &Dim, split: Option<&[Dim]>) -> Result<Vec<Dim>, OpError> {
        let n = self.parts()?;
        let Some(split) = split else {
            let part = size.ceil_div(&Dim::from(n));
            let last = size - &part * (n as i64 - 1);
            if last.as_fixed().is_some_and(|l| l < 0) {
                // The specification does not say what the parts would be.
                return Err(OpError::Unsupported(format!("a split of {size} into {n} parts of {part}")));
            }
            let mut parts = vec![part; n];
            parts[n - 1] = last;
            return Ok(parts);
        };
        if split.len() != n {
            return Err(value_error(1, "split", format!("{} sizes for {n} parts", split.len())));
        }
        if let Some(d) = split.iter().find(|d| d.at_least(0) == Some(false)) {
            return Err(value_error(1, "split", format!("{d} is not a size")));
        }
        let total = split.iter().fold(Dim::from(0), |a, b| a + b);
        if total.equals(size) == Some(false) {
            return Err(value_error(1, "split", format!("the parts are {total} together, not {size}")));
        }
        Ok(split.to_vec())
    }
}

impl Operator for Split {
    single!(Split, "Split");

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "input")?;
        let axis = normalize_axis(self.axis, x.rank(), "axis")?;
        let parts = match optional(inputs, 1) {
            None => self.cut(&x.shape[axis], None)?,
            Some(split) => {
                list_length(split, 1, "split")?;
                match split.dims() {
                    Some(d) => self.cut(&x.shape[axis], Some(&d))?,
                    None => (0..self.parts()?).map(|_| cx.fresh()).collect(),
                }
            }
        };
        let fact = |part: Dim| {
            let mut shape = x.shape.clone();
            shape[axis] = part;
            Fact::new(x.dtype, shape)
        };
        Ok(propagate(self, inputs, |i| i == 0, parts.into_iter().map(fact).collect()))
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = required(inputs, 0, "input")?;
        let axis = normalize_axis(self.axis, x.rank(), "axis")?;
        let split = optional(inputs, 1).map(|s| ints(s, 1, "split")).transpose()?;
        let split: Option<Vec<Dim>> = split.map(|s| s.into_iter().map(Dim::from).collect());
        let mut shape = dims(x.shape());
        let parts = self.cut(&shape[axis], split.as_deref())?;
        let steps = strides(x.shape());
        let mut offset = 0;
        let mut out = Vec::with_capacity(parts.len());
        for part in parts {
            shape[axis] = part;
            let shape = sizes(&shape, cx)?;
            let from = Layout { offset, strides: &steps };
            offset += shape[axis] * steps[axis] as usize;
            out.push(match_any!(x.data(), v => Tensor::new(shape.clone(), view(v, from, &shape, cx.pool))?));
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::movement::{Random, checked, gathered, run};

    #[test]
    fn agrees_with_indexing() {
        let mut random = Random::new(13);
        for _ in 0..200 {
            let rank = 1 + random.below(4);
            let mut shape = random.shape_of(rank, 4);
            let axis = random.below(rank);
            let n = 1 + random.below(4);
            let mut parts: Vec<usize> = (0..n).map(|_| random.below(4)).collect();
            let even = random.chance();
            if even {
                let (part, last) = (1 + random.below(3), random.below(3));
                parts = vec![part; n];
                parts[n - 1] = last.min(part).max(1);
            }
            shape[axis] = parts.iter().sum();
            let x = random.tensor(&shape);
            let op = Split { axis: random.signed(axis, rank), num_outputs: n as i64 };
            let split = Tensor::vector(parts.iter().map(|&p| p as i64).collect::<Vec<_>>());
            let ys = if even && shape[axis].div_ceil(n) == parts[0] {
                checked(&op, &[Some(&x)], &[0])
            } else {
                checked(&op, &[Some(&x), Some(&split)], &[0])
            };
            let mut begin = 0;
            for (y, &p) in ys.iter().zip(&parts) {
                let mut s = shape.clone();
                s[axis] = p;
                let expected = gathered(&x, &s, |i| {
                    let mut i = i.to_vec();
                    i[axis] += begin;
                    i
                });
                assert_eq!(*y, expected);
                begin += p;
            }
        }
    }

    #[test]
    fn refuses_what_does_not_add_up() {
        let x = Tensor::vector(vec![1.0f32; 5]);
        let with = |n: i64, split: Vec<i64>| {
            run(&Split { axis: 0, num_outputs: n }, &[Some(&x), Some(&Tensor::vector(split))])
        };
        assert!(with(2, vec![2, 3]).is_ok());
        for bad in [vec![2, 2], vec![-1, 6], vec![5], vec![i64::MAX, i64::MAX], vec![]] {
            assert!(with(2, bad).is_err());
        }
        for n in [0, -1, 4, i64::MAX] {
            assert!(run(&Split { axis: 0, num_outputs: n }, &[Some(&x)]).is_err(), "{n}");
        }
    }
}
