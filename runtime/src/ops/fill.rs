//! Tensors from sizes alone: [ConstantOfShape](https://onnx.ai/onnx/operators/onnx__ConstantOfShape.html),
//! [Range](https://onnx.ai/onnx/operators/onnx__Range.html) and [EyeLike](https://onnx.ai/onnx/operators/onnx__EyeLike.html).

use half::{bf16, f16};

use crate::{
    DType, Data, Dim, Element, Fact, OpError, Tensor, attributes,
    match_any,
    ops::{
        InferCx, Operator, RunCx,
        helpers::{elements, required},
        known::{ints, listed, propagate, shape_error, sizes, value_error},
        
    },
    scalar::Scalar,
};

attributes! {
    /// A tensor of the sizes that `input` (a list of i64) names, every element the same.
    pub struct ConstantOfShape {
        /// The element, as a tensor of one element.
        pub value: Tensor,
    }
}

impl ConstantOfShape {
    fn check(&self, shape: &[Dim]) -> Result<(), OpError> {
        if self.value.len() != 1 {
            let problem = format!("a tensor of shape {:?} is not one element", self.value.shape());
            return Err(OpError::Attribute { name: "value", problem });
        }
        match shape.iter().find(|d| d.at_least(0) == Some(false)) {
            Some(d) => Err(value_error(0, "input", format!("{d} is not a size"))),
            None => Ok(()),
        }
    }
}

impl Operator for ConstantOfShape {
    single!(ConstantOfShape, "ConstantOfShape");

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let shape = listed(required(inputs, 0, "input")?, 0, "input", cx)?;
        self.check(&shape)?;
        Ok(propagate(self, inputs, |_| false, vec![Fact::new(self.value.dtype(), shape)]))
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let shape: Vec<Dim> =
            ints(required(inputs, 0, "input")?, 0, "input")?.into_iter().map(Dim::from).collect();
        self.check(&shape)?;
        let shape = sizes(&shape, cx)?;
        let value = cx.made(self.value.clone());
        let n = shape.iter().product();
        match_any!(value.data(), v => Ok(vec![Tensor::new(shape, v.iter().cloned().cycle().take(n).collect())?]))
    }
}

attributes! {
    /// `start, start + delta, start + 2*delta, ..` before `limit`: `max(ceil((limit - start) / delta), 0)` elements. The three
    /// operands are scalars of one type. f16 and bf16 are computed in f32.
    pub struct Range {}
}

/// The element of an operand that must have one.
fn scalar<T: Element>(t: &Tensor, index: usize, name: &'static str) -> Result<T, OpError> {
    match elements::<T>(t, index, name)? {
        [v] => Ok(v.clone()),
        v => Err(value_error(index, name, format!("{} elements where one is needed", v.len()))),
    }
}

const OPERANDS: [&str; 3] = ["start", "limit", "delta"];

impl Operator for Range {
    single!(Range, "Range");

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let mut bounds = Vec::with_capacity(3);
        for (i, name) in OPERANDS.into_iter().enumerate() {
            let f = required(inputs, i, name)?;
            let dtype = required(inputs, 0, "start")?.dtype;
            let taken = dtype.is_float() || matches!(dtype, DType::I16 | DType::I32 | DType::I64);
            if f.dtype != dtype || !taken {
                let expected = "a float, i16, i32 or i64, the same thrice";
                return Err(OpError::InputType { index: i, name, dtype: f.dtype, expected });
            }
            if f.rank() > 1 || f.element_count().equals(&Dim::from(1)) == Some(false) {
                return Err(shape_error(i, name, &f.shape, "a scalar is needed"));
            }
            bounds.push(f.dims().filter(|d| d.len() == 1).and_then(|mut d| d.pop()));
        }
        let dtype = required(inputs, 0, "start")?.dtype;
        if let [Some(start), Some(limit), Some(delta)] = &bounds[..]
            && let Some(step) = delta.as_fixed()
        {
            let room = if step < 0 { start - limit } else { limit - start };
            let Some(size) = step.checked_abs().filter(|&s| s > 0) else {
                return Err(value_error(2, "delta", format!("a step of {step}")));
            };
            let count = room.maximum(&Dim::from(0)).ceil_div(&Dim::from(size));
            let out = Fact::new(dtype, [count.clone()]);
            if dtype == DType::I16 {
                return Ok(vec![propagate(self, inputs, |_| false, vec![out]).remove(0)]);
            }
            return Ok(vec![match count.as_fixed() {
                Some(n) if n <= Fact::MAX_KNOWN as i64 => {
                    out.with_dims((0..n).map(|i| start + delta * i).collect())
                }
                _ => out,
            }]);
        }
        // Floats, and what is not known: a run of the constants tells how many.
        let known: Option<Vec<Tensor>> =
            inputs.iter().take(3).map(|f| f.and_then(crate::ops::known::known_tensor)).collect();
        if let Some(known) = known {
            let refs: Vec<Option<&Tensor>> = known.iter().map(Some).collect();
            if let Some(y) = crate::ops::known::run_small(self, &refs) {
                return Ok(y.iter().map(Fact::of).collect());
            }
        }
        Ok(vec![Fact::new(dtype, [cx.fresh()])])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let bounds = [required(inputs, 0, OPERANDS[0])?, required(inputs, 1, OPERANDS[1])?, required(inputs, 2, OPERANDS[2])?];
        let dtype = bounds[0].dtype();
        let y = match bounds[0].data() {
            Data::I16(_) => integers::<i16>(bounds, cx)?,
            Data::I32(_) => integers::<i32>(bounds, cx)?,
            Data::I64(_) => integers::<i64>(bounds, cx)?,
            Data::F32(_) => floats::<f32>(bounds, cx)?,
            Data::F64(_) => floats::<f64>(bounds, cx)?,
            Data::F16(_) => floats::<f32>(widened::<f16>(bounds)?.each_ref(), cx)?.rounded_to(dtype),
            Data::BF16(_) => floats::<f32>(widened::<bf16>(bounds)?.each_ref(), cx)?.rounded_to(dtype),
            Data::Field(_) => return Err(OpError::Unsupported("a range of elements of the test field".into())),
            _ => {
                let expected = "a float, i16, i32 or i64, the same thrice";
                return Err(OpError::InputType { index: 0, name: OPERANDS[0], dtype, expected });
            }
        };
        Ok(vec![y])
    }
}

fn widened<T: Element>(bounds: [&Tensor; 3]) -> Result<[Tensor; 3], OpError> {
    for (i, b) in bounds.iter().enumerate() {
        elements::<T>(b, i, OPERANDS[i])?;
    }
    Ok(bounds.map(|b| b.rounded_to(DType::F32)))
}

fn integers<T: Element + Copy + Into<i64> + TryFrom<i64>>(bounds: [&Tensor; 3], cx: &RunCx<'_>) -> Result<Tensor, OpError> {
    let mut v = [0i128; 3];
    for (i, b) in bounds.iter().enumerate() {
        v[i] = i128::from(scalar::<T>(b, i, OPERANDS[i])?.into());
    }
    let [start, limit, delta] = v;
    if delta == 0 {
        return Err(value_error(2, OPERANDS[2], "a step of 0"));
    }
    let room = if delta > 0 { limit - start } else { start - limit }.max(0).unsigned_abs();
    let n = cx.count(&[usize::try_from(room.div_ceil(delta.unsigned_abs())).unwrap_or(usize::MAX)])?;
    // Every element lies between start and limit.
    let element = |i: usize| i64::try_from(start + i as i128 * delta).ok().and_then(|x| T::try_from(x).ok()).unwrap_or_default();
    Ok(Tensor::vector((0..n).map(element).collect()))
}

fn floats<T: Element + Scalar>(bounds: [&Tensor; 3], cx: &RunCx<'_>) -> Result<Tensor, OpError> {
    let mut v = [T::ZERO; 3];
    for (i, b) in bounds.iter().enumerate() {
        v[i] = scalar::<T>(b, i, OPERANDS[i])?;
    }
    let [start, limit, delta] = v;
    let wide = v.map(|x| x.to_f64().unwrap_or(f64::NAN));
    let n = ((wide[1] - wide[0]) / wide[2]).ceil().max(0.0);
    if wide[2] == 0.0 || !n.is_finite() {
        return Err(value_error(2, OPERANDS[2], format!("no number of steps of {delta:?} leads from {start:?} to {limit:?}")));
    }
    let n = cx.count(&[n as usize])?;
    Ok(Tensor::vector((0..n).map(|i| start.add(T::from_f64(i as f64).mul(delta))).collect()))
}

attributes! {
    /// A matrix of the sizes of `input` with ones on one diagonal, zeros elsewhere.
    pub struct EyeLike {
        /// The type of the result; that of `input` if absent.
        pub dtype: Option<DType>,
        /// The diagonal: 0 the main one, positive ones above it.
        pub k: i64,
    }
}

impl Operator for EyeLike {
    single!(EyeLike, "EyeLike");

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "input")?;
        if x.rank() != 2 {
            return Err(shape_error(0, "input", &x.shape, "a matrix is needed"));
        }
        let dtype = self.dtype.unwrap_or(x.dtype);
        if !(dtype.is_float() || dtype.is_integer() || dtype == DType::Bool) {
            return Err(OpError::Unsupported(format!("an identity matrix of type {dtype}")));
        }
        Ok(vec![Fact::new(dtype, x.shape.clone())])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = required(inputs, 0, "input")?;
        let [rows, columns] = *x.shape() else {
            let shape = crate::ops::known::dims(x.shape());
            return Err(shape_error(0, "input", &shape, "a matrix is needed"));
        };
        let dtype = self.dtype.unwrap_or(x.dtype());
        let mut y = vec![false; cx.count(&[rows, columns])?];
        for r in 0..rows {
            let c = (r as i64).checked_add(self.k).and_then(|c| usize::try_from(c).ok());
            if let Some(c) = c.filter(|&c| c < columns) {
                y[r * columns + c] = true;
            }
        }
        crate::ops::cast::Cast { to: dtype }.run(&[Some(&Tensor::new([rows, columns], y)?)], cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Bindings, Real,
        ops::movement::{Random, checked, infer, run, run_in, unravel},
        scalar::Field,
    };

    #[test]
    fn constants_of_a_shape() {
        let op = |value| ConstantOfShape { value };
        let list = |v: &[i64]| Tensor::vector(v.to_vec());
        let y = checked(&op(Tensor::vector(vec![7i64])), &[Some(&list(&[2, 3]))], &[]).remove(0);
        assert_eq!(y, Tensor::new([2, 3], vec![7i64; 6]).unwrap());
        let y = checked(&op(Tensor::vector(vec![true])), &[Some(&list(&[]))], &[]).remove(0);
        assert_eq!(y, Tensor::scalar(true));
        let zeros = op(Tensor::vector(vec![0.5f32]));
        assert_eq!(checked(&zeros, &[Some(&list(&[0, 4]))], &[])[0].shape(), [0, 4]);
        assert_eq!(run_in(&zeros, &[Some(&list(&[1]))], Real::F64).unwrap()[0], Tensor::vector(vec![0.5f64]));
        assert_eq!(run_in(&zeros, &[Some(&list(&[1]))], Real::Field).unwrap()[0], Tensor::vector(vec![Field::from_f64(0.5)]));
        for bad in [vec![-1], vec![1 << 40], vec![i64::MAX, i64::MAX], vec![i64::MIN]] {
            assert!(run(&zeros, &[Some(&list(&bad))]).is_err());
        }
        assert!(run(&op(Tensor::vector(vec![1i64, 2])), &[Some(&list(&[1]))]).is_err());
    }

    #[test]
    fn ranges() {
        let mut random = Random::new(37);
        for _ in 0..200 {
            let (start, limit) = (random.between(-9, 9), random.between(-9, 9));
            let delta = [-3, -2, -1, 1, 2, 3][random.below(6)];
            let mut expected = Vec::new();
            let mut at = start;
            while if delta > 0 { at < limit } else { at > limit } {
                expected.push(at);
                at += delta;
            }
            let [a, b, c] = [start, limit, delta].map(Tensor::scalar);
            let inputs = [Some(&a), Some(&b), Some(&c)];
            assert_eq!(checked(&Range {}, &inputs, &[]).remove(0), Tensor::vector(expected.clone()));
            let [a, b, c] = [start, limit, delta].map(|v| Tensor::scalar(v as f32 * 0.25));
            let y = checked(&Range {}, &[Some(&a), Some(&b), Some(&c)], &[]).remove(0);
            assert_eq!(y, Tensor::vector(expected.iter().map(|&v| v as f32 * 0.25).collect()));
            // With symbols for both bounds.
            let bound = |name: &str, v: i64| Fact::fixed(DType::I64, &[]).with_dims(vec![Dim::symbol(name) + (v - 1)]);
            let (a, b, c) = (bound("a", start), bound("b", limit), Fact::of(&Tensor::scalar(delta)));
            let y = infer(&Range {}, &[Some(&a), Some(&b), Some(&c)]).unwrap().remove(0);
            let bindings = Bindings::from([("a".into(), 1), ("b".into(), 1)]);
            assert_eq!(y.shape[0].eval(&bindings), Ok(expected.len() as i64));
        }
        let go = |v: [i64; 3]| {
            let [a, b, c] = v.map(Tensor::scalar);
            run(&Range {}, &[Some(&a), Some(&b), Some(&c)])
        };
        assert!(go([0, 5, 0]).is_err() && go([i64::MIN, i64::MAX, 1]).is_err());
        assert_eq!(go([i64::MIN, i64::MAX, i64::MAX]).unwrap()[0].len(), 3);
        for (v, ok) in [([0.0, 1.0, 0.0], false), ([0.0, f32::INFINITY, 1.0], false), ([f32::NAN, 1.0, 1.0], true), ([0.0, 1e30, 1.0], false)] {
            let [a, b, c] = v.map(Tensor::scalar);
            assert_eq!(run(&Range {}, &[Some(&a), Some(&b), Some(&c)]).is_ok(), ok, "{v:?}");
        }
        let [a, b, c] = [0.0, 2048.0 + 4.0, 2.0].map(|v| Tensor::scalar(f16::from_f64(v)));
        assert_eq!(checked(&Range {}, &[Some(&a), Some(&b), Some(&c)], &[])[0].len(), 1026);
    }

    #[test]
    fn diagonals() {
        for k in [0, 1, -2, 9, i64::MAX, i64::MIN] {
            let x = Tensor::new([3, 4], vec![5i32; 12]).unwrap();
            let y = checked(&EyeLike { dtype: Some(DType::F32), k }, &[Some(&x)], &[]).remove(0);
            for (i, &v) in y.as_slice::<f32>().unwrap().iter().enumerate() {
                let at = unravel(i, &[3, 4]);
                assert_eq!(v == 1.0, at[1] as i64 - at[0] as i64 == k);
            }
            assert_eq!(checked(&EyeLike { dtype: None, k }, &[Some(&x)], &[])[0].dtype(), DType::I32);
        }
        assert!(run(&EyeLike { dtype: None, k: 0 }, &[Some(&Tensor::scalar(1))]).is_err());
    }
}
