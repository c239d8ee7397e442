//! Concatenation: <https://onnx.ai/onnx/operators/onnx__Concat.html>.

use crate::{
    Dim, Element, Fact, OpError, Tensor, attributes,
    match_any,
    ops::{
        InferCx, Operator, RunCx,
        helpers::{elements, normalize_axis, required},
        known::{dims, propagate, shape_error, sizes, unify},
        
    },
};

attributes! {
    /// The operands one behind the other along `axis`; their other sizes and their types are the same.
    pub struct Concat {
        /// The axis, counted from the back if negative.
        pub axis: i64,
    }
}

impl Concat {
    fn shape(&self, inputs: &[&[Dim]]) -> Result<(usize, Vec<Dim>), OpError> {
        let mut out = inputs.first().map_or_else(Vec::new, |s| s.to_vec());
        let axis = normalize_axis(self.axis, out.len(), "axis")?;
        for (index, shape) in inputs.iter().enumerate().skip(1) {
            if shape.len() != out.len() {
                return Err(shape_error(index, "inputs", shape, format!("{} dimensions are needed", out.len())));
            }
            for (i, (o, d)) in out.iter_mut().zip(*shape).enumerate() {
                *o = if i == axis {
                    &*o + d
                } else {
                    unify(o, d, || shape_error(index, "inputs", shape, format!("{o} is needed at axis {i}")))?
                };
            }
        }
        Ok((axis, out))
    }
}

fn all<'a, T>(inputs: &[Option<&'a T>]) -> Result<Vec<&'a T>, OpError> {
    (0..inputs.len().max(1)).map(|i| required(inputs, i, "inputs")).collect()
}

impl Operator for Concat {
    single!(Concat, "Concat");

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let facts = all(inputs)?;
        let dtype = facts[0].dtype;
        if let Some(index) = facts.iter().position(|f| f.dtype != dtype) {
            let expected = "the type of the first operand";
            return Err(OpError::InputType { index, name: "inputs", dtype: facts[index].dtype, expected });
        }
        let shapes: Vec<&[Dim]> = facts.iter().map(|f| f.shape.as_slice()).collect();
        let (_, shape) = self.shape(&shapes)?;
        Ok(propagate(self, inputs, |_| true, vec![Fact::new(dtype, shape)]))
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        fn join<T: Element>(parts: &[&Tensor], axis: usize, shape: Vec<usize>) -> Result<Tensor, OpError> {
            let inner: usize = shape[axis + 1..].iter().product();
            let outer: usize = shape[..axis].iter().product();
            let mut runs: Vec<(&[T], usize)> = Vec::with_capacity(parts.len());
            for (i, p) in parts.iter().enumerate() {
                runs.push((elements(p, i, "inputs")?, p.shape()[axis] * inner));
            }
            let mut out: Vec<T> = Vec::with_capacity(shape.iter().product());
            for o in 0..outer {
                for (v, run) in &runs {
                    out.extend_from_slice(&v[o * run..(o + 1) * run]);
                }
            }
            Ok(Tensor::new(shape, out)?)
        }
        fn of<T: Element>(_: &[T], parts: &[&Tensor], axis: usize, shape: Vec<usize>) -> Result<Tensor, OpError> {
            join::<T>(parts, axis, shape)
        }
        let parts = all(inputs)?;
        let shapes: Vec<Vec<Dim>> = parts.iter().map(|t| dims(t.shape())).collect();
        let refs: Vec<&[Dim]> = shapes.iter().map(Vec::as_slice).collect();
        let (axis, shape) = self.shape(&refs)?;
        if let [one] = parts[..] {
            return Ok(vec![one.clone()]);
        }
        let shape = sizes(&shape, cx)?;
        match_any!(parts[0].data(), v => Ok(vec![of(v, &parts, axis, shape)?]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::movement::{Random, checked, ravel, run, unravel};

    #[test]
    fn agrees_with_indexing() {
        let mut random = Random::new(11);
        for _ in 0..200 {
            let rank = 1 + random.below(4);
            let shape = random.shape_of(rank, 4);
            let axis = random.below(rank);
            let mut next = 0;
            let parts: Vec<Tensor> = (0..1 + random.below(4))
                .map(|_| {
                    let mut s = shape.clone();
                    s[axis] = random.below(4);
                    let n: usize = s.iter().product();
                    next += 100;
                    Tensor::new(s, (0..n).map(|i| next + i as i64).collect::<Vec<_>>()).unwrap()
                })
                .collect();
            let op = Concat { axis: random.signed(axis, rank) };
            let y = checked(&op, &parts.iter().map(Some).collect::<Vec<_>>(), &[0]).remove(0);
            let mut begin = 0;
            for p in &parts {
                for k in 0..p.len() {
                    let mut index = unravel(k, p.shape());
                    index[axis] += begin;
                    assert_eq!(y.as_slice::<i64>().unwrap()[ravel(&index, y.shape())], p.as_slice::<i64>().unwrap()[k]);
                }
                begin += p.shape()[axis];
            }
            assert_eq!(y.shape()[axis], begin);
        }
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let (a, b) = (Tensor::vector(vec![1.0f32]), Tensor::new([1, 1], vec![1.0f32]).unwrap());
        let (s, i) = (Tensor::scalar(1.0f32), Tensor::vector(vec![1i64]));
        assert!(run(&Concat { axis: 0 }, &[]).is_err());
        assert!(run(&Concat { axis: 0 }, &[Some(&a), None]).is_err());
        assert!(run(&Concat { axis: 0 }, &[Some(&a), Some(&b)]).is_err());
        assert!(run(&Concat { axis: 0 }, &[Some(&a), Some(&i)]).is_err());
        assert!(run(&Concat { axis: 1 }, &[Some(&a), Some(&a)]).is_err());
        assert!(run(&Concat { axis: 0 }, &[Some(&s), Some(&s)]).is_err());
    }
}
