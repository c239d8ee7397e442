//! Clamping to a range: <https://onnx.ai/onnx/operators/onnx__Clip.html>.

use crate::{
    DType, Data, Dim, Element, Fact, Known, OpError, Tensor, attributes,
    match_integer, match_real,
    ops::{
        InferCx, Operator, RunCx,
        elementwise::{map, same_type, shape_error},
        helpers::{elements, expect_dtype, fold, optional, required},
    },
    scalar::Scalar,
};

attributes! {
    /// `y = min(max(x, lo), hi)`, elementwise. Operands: x, lo (optional), hi (optional), the last two of one element and the
    /// type of x. Where `lo > hi`, the result is hi.
    pub struct Clip {}
}

fn bound<T: Element + Copy>(t: Option<&Tensor>, index: usize, name: &'static str) -> Result<Option<T>, OpError> {
    let Some(t) = t else { return Ok(None) };
    match elements::<T>(t, index, name)? {
        [v] => Ok(Some(*v)),
        _ => Err(shape_error(index, name, &Fact::fixed(t.dtype(), t.shape()), "one element is needed")),
    }
}

fn clip<T: Element + Copy>(
    v: &[T],
    (lo, hi): (Option<T>, Option<T>),
    cx: &RunCx<'_>,
    (max, min): (impl Fn(T, T) -> T + Sync, impl Fn(T, T) -> T + Sync),
) -> Data {
    T::wrap(match (lo, hi) {
        (Some(lo), Some(hi)) => map(cx.pool, v, |&x| min(max(x, lo), hi)),
        (Some(lo), None) => map(cx.pool, v, |&x| max(x, lo)),
        (None, Some(hi)) => map(cx.pool, v, |&x| min(x, hi)),
        (None, None) => v.to_vec(),
    })
}

impl Operator for Clip {
    single!(Clip, "Clip");

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "input")?;
        expect_dtype(x, 0, "input", "a number type", |d| d.is_float() || d.is_integer())?;
        for (index, name) in [(1, "min"), (2, "max")] {
            let Some(b) = optional(inputs, index) else { continue };
            same_type(x.dtype, b.dtype, index, name)?;
            if b.element_count().equals(&Dim::from(1)) == Some(false) {
                return Err(shape_error(index, name, b, "one element is needed"));
            }
        }
        if let Some(folded) = fold(self, inputs) {
            return Ok(folded);
        }
        let mut y = Fact::new(x.dtype, x.shape.clone());
        if matches!(x.dtype, DType::I64 | DType::I32) {
            let bounds = [optional(inputs, 1), optional(inputs, 2)].map(|b| match b {
                Some(b) => b.dims().and_then(|d| d.first().cloned()).map(Some),
                None => Some(None),
            });
            if let (Some(dims), [Some(lo), Some(hi)]) = (x.dims(), bounds) {
                let clip = |d: Dim| {
                    let d = lo.as_ref().map_or(d.clone(), |lo| d.maximum(lo));
                    hi.as_ref().map_or(d.clone(), |hi| d.minimum(hi))
                };
                let dims: Vec<Dim> = dims.into_iter().map(clip).collect();
                y.known = dims.iter().all(|d| !d.is_overflow()).then_some(Known::Dims(dims));
            }
        }
        Ok(vec![y])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, lo, hi) = (required(inputs, 0, "input")?, optional(inputs, 1), optional(inputs, 2));
        cx.count(x.shape())?;
        let data = match_real!(x.data(), v => {
            clip(v, (bound(lo, 1, "min")?, bound(hi, 2, "max")?), cx, (Scalar::max, Scalar::min))
        }, else match_integer!(x.data(), v => {
            clip(v, (bound(lo, 1, "min")?, bound(hi, 2, "max")?), cx, (Ord::max, Ord::min))
        }, else {
            return Err(OpError::InputType { index: 0, name: "input", dtype: x.dtype(), expected: "a number type" });
        }));
        Ok(vec![Tensor::from_data(x.shape(), data)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Real, ops::testing::{run, run_holes}};

    #[test]
    fn bounds_may_be_missing_or_crossed() {
        let x = Tensor::vector(vec![-3f32, 0.5, 9.0, f32::NAN]);
        let (lo, hi) = (Tensor::scalar(0f32), Tensor::scalar(6f32));
        let y = run(&Clip {}, &[&x, &lo, &hi]).unwrap();
        assert_eq!(y[0].as_slice::<f32>().unwrap()[..3], [0.0, 0.5, 6.0]);
        assert!(y[0].as_slice::<f32>().unwrap()[3].is_nan());
        let y = run(&Clip {}, &[&x, &hi, &lo]).unwrap();
        assert_eq!(y[0].as_slice::<f32>().unwrap()[..3], [0.0, 0.0, 0.0]);
        let y = run_holes(&Clip {}, &[Some(&x), None, Some(&hi)], Real::Native).unwrap();
        assert_eq!(y[0].as_slice::<f32>().unwrap()[..3], [-3.0, 0.5, 6.0]);
        let i = Tensor::new([2, 1], vec![-5i8, 5]).unwrap();
        assert_eq!(run(&Clip {}, &[&i, &Tensor::scalar(-1i8)]).unwrap()[0].to_i64s().unwrap(), [-1, 5]);
        assert!(run(&Clip {}, &[&x, &Tensor::vector(vec![0f32, 1.0])]).is_err());
        assert!(run(&Clip {}, &[&x, &i]).is_err());
    }
}
