//! One-hot vectors: <https://onnx.ai/onnx/operators/onnx__OneHot.html>.

use crate::{
    DType, Dim, Fact, OpError, Tensor, attributes, match_any,
    ops::{
        InferCx, Operator, RunCx,
        helpers::{expect_dtype, normalize_axis, required},
        known::{dims, known_tensor, shape_error, sizes, value_error},
    },
};

attributes! {
    /// `y[a.., d, b..] = values[1]` where `d` is `indices[a.., b..]`, else `values[0]`, with `d` at position `axis`, below `depth`.
    ///
    /// `indices` and `depth` (one element) are numbers of any type, cut to integers; negative indices count from `depth`, those
    /// beyond name no place. `values` has two elements.
    pub struct OneHot {
        /// The new axis, counted from the back of the result if negative.
        pub axis: i64,
    }
}

fn is_number(d: DType) -> bool {
    d.is_integer() || d.is_float()
}

/// The elements as integers, floats cut.
fn whole(t: &Tensor, index: usize, name: &'static str) -> Result<Vec<i64>, OpError> {
    let ints = t.to_i64s().or_else(|| Some(t.to_f64s()?.into_iter().map(|x| x as i64).collect()));
    ints.ok_or(OpError::InputType { index, name, dtype: t.dtype(), expected: "a number" })
}

fn depth(t: &Tensor) -> Result<usize, OpError> {
    match whole(t, 1, "depth")?[..] {
        [d] => usize::try_from(d).map_err(|_| value_error(1, "depth", format!("a depth of {d}"))),
        ref v => Err(value_error(1, "depth", format!("{} elements where one is needed", v.len()))),
    }
}

impl Operator for OneHot {
    single!(OneHot, "OneHot");

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (x, d, values) =
            (required(inputs, 0, "indices")?, required(inputs, 1, "depth")?, required(inputs, 2, "values")?);
        expect_dtype(x, 0, "indices", "a number", is_number)?;
        expect_dtype(d, 1, "depth", "a number", is_number)?;
        if d.rank() > 1 || d.element_count().equals(&Dim::from(1)) == Some(false) {
            return Err(shape_error(1, "depth", &d.shape, "a scalar is needed"));
        }
        if values.rank() != 1 || values.shape[0].equals(&Dim::from(2)) == Some(false) {
            return Err(shape_error(2, "values", &values.shape, "[2] is needed"));
        }
        let axis = normalize_axis(self.axis, x.rank() + 1, "axis")?;
        let size = match (known_tensor(d), d.dims()) {
            (Some(t), _) => Dim::from(depth(&t)?),
            (None, Some(v)) if v.len() == 1 => v[0].clone(),
            _ => cx.fresh(),
        };
        let mut shape = x.shape.clone();
        shape.insert(axis, size);
        Ok(vec![Fact::new(values.dtype, shape)])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, d, values) =
            (required(inputs, 0, "indices")?, required(inputs, 1, "depth")?, required(inputs, 2, "values")?);
        let axis = normalize_axis(self.axis, x.rank() + 1, "axis")?;
        let depth = depth(d)?;
        let mut shape = dims(x.shape());
        shape.insert(axis, Dim::from(depth));
        let shape = sizes(&shape, cx)?;
        let inner: usize = x.shape()[axis..].iter().product();
        let at = whole(x, 0, "indices")?;
        match_any!(values.data(), v => {
            let [off, on] = &v[..] else {
                return Err(shape_error(2, "values", &dims(values.shape()), "[2] is needed"));
            };
            #[allow(clippy::clone_on_copy)]
            let mut y = vec![off.clone(); shape.iter().product()];
            for (k, &i) in at.iter().enumerate() {
                let place = if i < 0 { i.saturating_add(depth as i64) } else { i };
                if let Some(place) = usize::try_from(place).ok().filter(|&p| p < depth) {
                    y[(k / inner * depth + place) * inner + k % inner].clone_from(on);
                }
            }
            Ok(vec![Tensor::new(shape, y)?])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::movement::{Random, checked, infer, ravel, run, unravel};

    #[test]
    fn agrees_with_indexing() {
        let mut random = Random::new(71);
        for _ in 0..200 {
            let shape = random.shape(3, 4);
            let n: usize = shape.iter().product();
            let depth = random.below(5);
            let picks: Vec<i64> = (0..n).map(|_| random.between(-6, 6)).collect();
            let axis = random.below(shape.len() + 1);
            let x = Tensor::new(shape.clone(), picks.clone()).unwrap();
            let values = Tensor::vector(vec![2.0f32, 5.0]);
            let op = OneHot { axis: random.signed(axis, shape.len() + 1) };
            let y = checked(&op, &[Some(&x), Some(&Tensor::scalar(depth as i64)), Some(&values)], &[]).remove(0);
            for (k, &v) in y.as_slice::<f32>().unwrap().iter().enumerate() {
                let mut i = unravel(k, y.shape());
                let d = i.remove(axis) as i64;
                let pick = picks[ravel(&i, &shape)];
                assert_eq!(v == 5.0, pick == d || pick + depth as i64 == d);
            }
        }
        let (x, v) = (Tensor::vector(vec![1.9f32]), Tensor::vector(vec![0i64, 1]));
        let y = checked(&OneHot { axis: -1 }, &[Some(&x), Some(&Tensor::vector(vec![3.0f32])), Some(&v)], &[]).remove(0);
        assert_eq!(y.as_slice::<i64>().unwrap(), [0, 1, 0]);
        for bad in [-1, 1 << 40, i64::MAX] {
            assert!(run(&OneHot { axis: 0 }, &[Some(&x), Some(&Tensor::scalar(bad)), Some(&v)]).is_err());
        }
        assert!(run(&OneHot { axis: 2 }, &[Some(&x), Some(&Tensor::scalar(1i64)), Some(&v)]).is_err());
        assert!(run(&OneHot { axis: 0 }, &[Some(&x), Some(&Tensor::scalar(1i64)), Some(&x)]).is_err());
        let unknown = Fact::fixed(DType::I64, &[]);
        let y = infer(&OneHot { axis: 0 }, &[Some(&Fact::of(&x)), Some(&unknown), Some(&Fact::of(&v))]).unwrap();
        assert_eq!(y[0].rank(), 2);
    }
}
