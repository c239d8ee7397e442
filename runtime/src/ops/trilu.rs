//! Triangles: <https://onnx.ai/onnx/operators/onnx__Trilu.html>.

use crate::{
    Fact, OpError, Tensor, attributes, match_any,
    ops::{
        InferCx, Operator, RunCx,
        helpers::{expect_dtype, optional, required},
        known::{dims, ints, propagate, shape_error, value_error},
    },
};

attributes! {
    /// The upper (`j - i >= k`) or lower (`j - i <= k`) triangle of each matrix in the last two axes, zeros elsewhere; `k`
    /// (an i64 scalar) is 0 if left out.
    pub struct Trilu {
        /// Which triangle.
        pub upper: bool,
    }
}

impl Operator for Trilu {
    single!(Trilu, "Trilu");

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "input")?;
        if x.rank() < 2 {
            return Err(shape_error(0, "input", &x.shape, "at least 2 dimensions are needed"));
        }
        if let Some(k) = optional(inputs, 1) {
            expect_dtype(k, 1, "k", "an integer", crate::DType::is_integer)?;
        }
        Ok(propagate(self, inputs, |i| i == 0, vec![Fact::new(x.dtype, x.shape.clone())]))
    }

    fn run(&self, inputs: &[Option<&Tensor>], _: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = required(inputs, 0, "input")?;
        let [.., rows, columns] = *x.shape() else {
            return Err(shape_error(0, "input", &dims(x.shape()), "at least 2 dimensions are needed"));
        };
        let k = match optional(inputs, 1).map(|k| ints(k, 1, "k")).transpose()?.as_deref() {
            None => 0,
            Some(&[k]) => k,
            Some(v) => return Err(value_error(1, "k", format!("{} elements where one is needed", v.len()))),
        };
        // The columns of row i that stay: from i + k on, or up to i + k.
        let kept = |i: usize| {
            let edge = (i as i64).saturating_add(k).saturating_add(i64::from(!self.upper));
            let edge = edge.clamp(0, columns as i64) as usize;
            if self.upper { edge..columns } else { 0..edge }
        };
        match_any!(x.data(), v => {
            let mut y = vec![Default::default(); v.len()];
            for (r, (to, from)) in y.chunks_mut(columns.max(1)).zip(v.chunks(columns.max(1))).enumerate() {
                let kept = kept(r % rows);
                to[kept.clone()].clone_from_slice(&from[kept]);
            }
            Ok(vec![Tensor::new(x.shape(), y)?])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::movement::{Random, checked, run, unravel};

    #[test]
    fn agrees_with_indexing() {
        let mut random = Random::new(73);
        for case in 0..200 {
            let rank = 2 + random.below(2);
            let shape = random.shape_of(rank, 5);
            let n: usize = shape.iter().product();
            let x = Tensor::new(shape.clone(), (1..=n as i64).collect::<Vec<_>>()).unwrap();
            let k = if case % 20 == 0 { [i64::MIN, i64::MAX][random.below(2)] } else { random.between(-6, 6) };
            let upper = random.chance();
            let y = checked(&Trilu { upper }, &[Some(&x), Some(&Tensor::scalar(k))], &[0]).remove(0);
            for (p, &v) in y.as_slice::<i64>().unwrap().iter().enumerate() {
                let i = unravel(p, &shape);
                let d = i[rank - 1] as i64 - i[rank - 2] as i64;
                let stays = if upper { d >= k } else { d <= k };
                assert_eq!(v, if stays { p as i64 + 1 } else { 0 });
            }
        }
        let x = Tensor::vector(vec![1.0f32]);
        assert!(run(&Trilu { upper: true }, &[Some(&x)]).is_err());
        let x = Tensor::new([1, 1], vec![1.0f32]).unwrap();
        assert!(run(&Trilu { upper: true }, &[Some(&x), Some(&Tensor::vector(vec![0i64; 2]))]).is_err());
    }
}
