//! Transposition: <https://onnx.ai/onnx/operators/onnx__Transpose.html>.

use crate::{
    Fact, OpError, Tensor, attributes,
    match_any,
    ops::{
        InferCx, Operator, RunCx,
        copy::{Layout, strides, view},
        helpers::required,
        known::propagate,
        
    },
};

attributes! {
    /// Axis `i` of the result is axis `perm[i]` of `data`.
    pub struct Transpose {
        /// A permutation of the axes.
        pub perm: Vec<i64>,
    }
}

impl Transpose {
    /// The permutation as indices into a shape of this rank.
    ///
    /// # Errors
    /// [`OpError::Attribute`] if it is none.
    pub fn order(&self, rank: usize) -> Result<Vec<usize>, OpError> {
        let order: Option<Vec<usize>> = self.perm.iter().map(|&p| usize::try_from(p).ok().filter(|&p| p < rank)).collect();
        let mut seen = vec![false; rank];
        if let Some(order) = order.filter(|o| o.len() == rank) {
            order.iter().for_each(|&o| seen[o] = true);
            if seen.iter().all(|&s| s) {
                return Ok(order);
            }
        }
        Err(OpError::Attribute {
            name: "perm",
            problem: format!("{:?} is not a permutation of the axes of a tensor of rank {rank}", self.perm),
        })
    }
}

impl Operator for Transpose {
    single!(Transpose, "Transpose");

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "data")?;
        let shape: Vec<_> = self.order(x.rank())?.into_iter().map(|o| x.shape[o].clone()).collect();
        Ok(propagate(self, inputs, |_| true, vec![Fact::new(x.dtype, shape)]))
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = required(inputs, 0, "data")?;
        let order = self.order(x.rank())?;
        let shape: Vec<usize> = order.iter().map(|&o| x.shape()[o]).collect();
        let moving = |order: &[usize]| order.iter().filter(|&&o| x.shape()[o] != 1).copied().collect::<Vec<_>>();
        if moving(&order).is_sorted() {
            return Ok(vec![x.reshaped(shape)?]);
        }
        let s = strides(x.shape());
        let steps: Vec<isize> = order.iter().map(|&o| s[o]).collect();
        let from = Layout { offset: 0, strides: &steps };
        match_any!(x.data(), v => Ok(vec![Tensor::new(shape.clone(), view(v, from, &shape, cx.pool))?]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::movement::{Random, checked, gathered, run};

    #[test]
    fn agrees_with_indexing() {
        let mut random = Random::new(7);
        for _ in 0..200 {
            let shape = random.shape(5, 5);
            let x = random.tensor(&shape);
            let order = random.permutation(shape.len());
            let op = Transpose { perm: order.iter().map(|&o| o as i64).collect() };
            let sizes: Vec<usize> = order.iter().map(|&o| shape[o]).collect();
            let expected = gathered(&x, &sizes, |index| {
                let mut source = vec![0; index.len()];
                order.iter().zip(index).for_each(|(&o, &i)| source[o] = i);
                source
            });
            assert_eq!(checked(&op, &[Some(&x)], &[0]).remove(0), expected);
        }
    }

    #[test]
    fn refuses_what_is_no_permutation() {
        let x = Random::new(1).tensor(&[2, 3]);
        for perm in [vec![], vec![0], vec![0, 0], vec![0, 2], vec![-1, 0], vec![1, 0, 2], vec![i64::MAX, 0]] {
            assert!(run(&Transpose { perm }, &[Some(&x)]).is_err());
        }
    }
}
