//! Cropping and padding about the centre: <https://onnx.ai/onnx/operators/onnx__CenterCropPad.html>.

use crate::{
    Dim, Fact, OpError, Tensor, attributes, match_any,
    ops::{
        InferCx, Operator, RunCx,
        copy::{Layout, copy, strides},
        helpers::{normalize_axis, required},
        known::{dims, ints, listed, sizes, value_error},
    },
};

attributes! {
    /// `input_data` with the sizes that `shape` (a list of integers) names for `axes`: cropped from `floor((size - target) / 2)` on,
    /// or with zeros around it, one more behind it if their number is odd.
    pub struct CenterCropPad {
        /// The axes, counted from the back if negative; all if absent.
        pub axes: Option<Vec<i64>>,
    }
}

impl CenterCropPad {
    fn shape(&self, x: &[Dim], target: &[Dim]) -> Result<Vec<Dim>, OpError> {
        let axes: Vec<usize> = match &self.axes {
            Some(a) => a.iter().map(|&a| normalize_axis(a, x.len(), "axes")).collect::<Result<_, _>>()?,
            None => (0..x.len()).collect(),
        };
        if axes.len() != target.len() {
            return Err(value_error(1, "shape", format!("{} sizes for {} axes", target.len(), axes.len())));
        }
        let mut shape = x.to_vec();
        for (&a, d) in axes.iter().zip(target) {
            if d.at_least(0) == Some(false) {
                return Err(value_error(1, "shape", format!("{d} is not a size")));
            }
            shape[a] = d.clone();
        }
        Ok(shape)
    }
}

impl Operator for CenterCropPad {
    single!(CenterCropPad, "CenterCropPad");

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (x, target) = (required(inputs, 0, "input_data")?, required(inputs, 1, "shape")?);
        let target = listed(target, 1, "shape", cx)?;
        Ok(vec![Fact::new(x.dtype, self.shape(&x.shape, &target)?)])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, target) = (required(inputs, 0, "input_data")?, required(inputs, 1, "shape")?);
        let target: Vec<Dim> = ints(target, 1, "shape")?.into_iter().map(Dim::from).collect();
        let shape = sizes(&self.shape(&dims(x.shape()), &target)?, cx)?;
        let (to, from) = (strides(&shape), strides(x.shape()));
        let (mut begin, mut first) = (0, 0);
        let mut kept = Vec::with_capacity(shape.len());
        for (a, (&n, &m)) in x.shape().iter().zip(&shape).enumerate() {
            first += n.saturating_sub(m) / 2 * from[a] as usize;
            begin += m.saturating_sub(n) / 2 * to[a] as usize;
            kept.push(n.min(m));
        }
        match_any!(x.data(), v => {
            let mut y = vec![Default::default(); shape.iter().product()];
            copy(&mut y, Layout { offset: begin, strides: &to }, v, Layout { offset: first, strides: &from }, &kept);
            Ok(vec![Tensor::new(shape, y)?])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::movement::{Random, checked, ravel, run, unravel};

    #[test]
    fn agrees_with_indexing() {
        let mut random = Random::new(103);
        for _ in 0..200 {
            let shape = random.shape(4, 6);
            let n: usize = shape.iter().product();
            let x = Tensor::new(shape.clone(), (1..=n as i64).collect::<Vec<_>>()).unwrap();
            let mut axes = random.permutation(shape.len());
            axes.truncate(random.below(shape.len() + 1));
            let mut sizes = shape.clone();
            axes.iter().for_each(|&a| sizes[a] = random.below(8));
            let target: Vec<i64> = axes.iter().map(|&a| sizes[a] as i64).collect();
            let op = CenterCropPad { axes: Some(axes.iter().map(|&a| random.signed(a, shape.len())).collect()) };
            let y = checked(&op, &[Some(&x), Some(&Tensor::vector(target))], &[]).remove(0);
            assert_eq!(y.shape(), sizes);
            for (k, &v) in y.as_slice::<i64>().unwrap().iter().enumerate() {
                let source: Option<Vec<usize>> = unravel(k, &sizes)
                    .into_iter()
                    .enumerate()
                    .map(|(a, i)| {
                        let (n, m) = (shape[a] as i64, sizes[a] as i64);
                        let p = i as i64 + if n > m { (n - m) / 2 } else { -((m - n) / 2) };
                        usize::try_from(p).ok().filter(|&p| p < shape[a])
                    })
                    .collect();
                assert_eq!(v, source.map_or(0, |s| ravel(&s, &shape) as i64 + 1));
            }
        }
        let x = Tensor::vector(vec![1.0f32]);
        for bad in [vec![-1], vec![1, 1], vec![1 << 40], vec![i64::MAX]] {
            assert!(run(&CenterCropPad { axes: None }, &[Some(&x), Some(&Tensor::vector(bad))]).is_err());
        }
    }
}
