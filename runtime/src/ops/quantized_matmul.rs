//! Matrix products of quantised numbers: <https://onnx.ai/onnx/operators/onnx__MatMulInteger.html>,
//! <https://onnx.ai/onnx/operators/onnx__QLinearMatMul.html>.

use crate::{
    DType, Data, Element, Fact, Known, OpError, Tensor, attributes,
    ops::{
        InferCx, Operator, RunCx,
        elementwise::{Operand, broadcast_pair, same_type, shape_error, zip},
        helpers::{expect_dtype, expect_float, facts, optional, required},
        integer::Integer,
        matmul::{MatMul, matmul},
    },
};

attributes! {
    /// `y = (a - za) * (b - zb)` (i32), NumPy's matrix product of 8-bit operands. Operands: a, b, za (optional: one number, or one a
    /// row), zb (optional: one number, or one a column). Sums wrap around at 32 bits.
    pub struct MatMulInteger {}
}

attributes! {
    /// `y = saturate(round((a - za) * (b - zb) * sa * sb / sy) + zy)`, ties to even. Operands: a, sa, za, b, sb, zb, sy, zy;
    /// 8-bit numbers, their scales (floats) and zero points. The product of the scales is taken first.
    pub struct QLinearMatMul {}
}

fn eight_bits(fact: &Fact, index: usize, name: &'static str) -> Result<(), OpError> {
    expect_dtype(fact, index, name, "u8 or i8", |d| matches!(d, DType::U8 | DType::I8))
}

/// The shape of a number for each row (`behind` = 1) or column (`behind` = 0) that broadcasts over the matrices `x`.
fn spread(numbers: &Tensor, x: &[usize], behind: usize) -> Vec<usize> {
    match numbers.shape() {
        [n] if behind == 1 && x.len() >= 2 => vec![*n, 1],
        shape => shape.to_vec(),
    }
}

/// `x - zero` in 32 bits.
fn shifted(x: &Tensor, zero: Option<&Tensor>, index: usize, behind: usize, cx: &RunCx<'_>) -> Result<Tensor, OpError> {
    let wide = |t: &Tensor, index| -> Result<Vec<i32>, OpError> {
        let wrong = || OpError::InputType { index, name: "operand", dtype: t.dtype(), expected: "u8 or i8" };
        match t.data() {
            Data::U8(v) => Ok(v.iter().map(|&x| x.into()).collect()),
            Data::I8(v) => Ok(v.iter().map(|&x| x.into()).collect()),
            _ => Err(wrong()),
        }
    };
    let v = wide(x, index)?;
    let Some(zero) = zero else { return Ok(Tensor::new(x.shape(), v)?) };
    let (z, shape) = (wide(zero, index)?, spread(zero, x.shape(), behind));
    if broadcast_pair(x.shape(), &shape, index)? != x.shape() {
        let fact = Fact::fixed(zero.dtype(), zero.shape());
        return Err(shape_error(index, "zero_point", &fact, format!("which does not broadcast to {:?}", x.shape())));
    }
    let (a, b) = (Operand { elements: &v, shape: x.shape() }, Operand { elements: &z, shape: &shape });
    Ok(Tensor::new(x.shape(), zip(cx.pool, a, b, x.shape(), |x, z| x - z))?)
}

/// The fact about the product of two matrices of integers.
fn product(a: &Fact, b: &Fact, dtype: DType, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
    let wide = |f: &Fact| Fact { dtype: DType::I32, shape: f.shape.clone(), known: None::<Known> };
    let mut y = MatMul {}.infer(&[Some(&wide(a)), Some(&wide(b))], cx)?;
    y.iter_mut().for_each(|f| f.dtype = dtype);
    Ok(y)
}

impl Operator for MatMulInteger {
    single!(MatMulInteger, "MatMulInteger");

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (a, b) = (required(inputs, 0, "A")?, required(inputs, 1, "B")?);
        eight_bits(a, 0, "A")?;
        eight_bits(b, 1, "B")?;
        for (x, index, name) in [(a, 2, "a_zero_point"), (b, 3, "b_zero_point")] {
            if let Some(zero) = optional(inputs, index) {
                same_type(x.dtype, zero.dtype, index, name)?;
            }
        }
        product(a, b, DType::I32, cx)
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let (a, b) = (required(inputs, 0, "A")?, required(inputs, 1, "B")?);
        let a = shifted(a, optional(inputs, 2), 2, 1, cx)?;
        let b = shifted(b, optional(inputs, 3), 3, 0, cx)?;
        Ok(vec![matmul::<i32>(cx, &a, &b)?])
    }
}

impl Operator for QLinearMatMul {
    single!(QLinearMatMul, "QLinearMatMul");

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (a, b) = (required(inputs, 0, "a")?, required(inputs, 3, "b")?);
        let (za, zb, zy) = (required(inputs, 2, "a_zero_point")?, required(inputs, 5, "b_zero_point")?, required(inputs, 7, "y_zero_point")?);
        eight_bits(a, 0, "a")?;
        eight_bits(b, 3, "b")?;
        same_type(a.dtype, za.dtype, 2, "a_zero_point")?;
        same_type(b.dtype, zb.dtype, 5, "b_zero_point")?;
        eight_bits(zy, 7, "y_zero_point")?;
        for (index, name) in [(1, "a_scale"), (4, "b_scale"), (6, "y_scale")] {
            expect_float(required(inputs, index, name)?, index, name)?;
        }
        product(a, b, zy.dtype, cx)
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let known = facts(inputs);
        let refs: Vec<Option<&Fact>> = known.iter().map(Option::as_ref).collect();
        self.infer(&refs, &mut InferCx::new(&mut || crate::Dim::from(0)))?;
        let operand = |i, name| required(inputs, i, name);
        let (a, b, zy) = (operand(0, "a")?, operand(3, "b")?, operand(7, "y_zero_point")?);
        let product = matmul::<i32>(
            cx,
            &shifted(a, Some(operand(2, "a_zero_point")?), 2, 1, cx)?,
            &shifted(b, Some(operand(5, "b_zero_point")?), 5, 0, cx)?,
        )?;
        let scale = |i, name, behind| -> Result<(Vec<f64>, Vec<usize>), OpError> {
            let t = operand(i, name)?;
            let v = t.to_f64s().ok_or_else(|| OpError::Unsupported("quantisation of field elements".into()))?;
            Ok((v, spread(t, product.shape(), behind)))
        };
        let mut y: Vec<f64> = product.to_i64s().unwrap_or_default().into_iter().map(|x| x as f64).collect();
        let shape = product.shape();
        let (sa, sb, sy) = (scale(1, "a_scale", 1)?, scale(4, "b_scale", 0)?, scale(6, "y_scale", 1)?);
        for (index, (v, s), divide) in [(1, &sa, false), (4, &sb, false), (6, &sy, true)] {
            if broadcast_pair(shape, s, index)? != shape {
                let fact = Fact::fixed(DType::F32, s);
                return Err(shape_error(index, "scale", &fact, format!("which does not broadcast to {shape:?}")));
            }
            let (left, right) = (Operand { elements: &y, shape }, Operand { elements: v, shape: s });
            y = zip(cx.pool, left, right, shape, |x, s| if divide { x / s } else { x * s });
        }
        let zero = zy.to_i64s().unwrap_or_default();
        let zero_shape = spread(zy, shape, 1);
        if broadcast_pair(shape, &zero_shape, 7)? != shape {
            let fact = Fact::fixed(zy.dtype(), zy.shape());
            return Err(shape_error(7, "y_zero_point", &fact, format!("which does not broadcast to {shape:?}")));
        }
        let (left, right) = (Operand { elements: &y, shape }, Operand { elements: &zero, shape: &zero_shape });
        let data = match zy.dtype() {
            DType::U8 => u8::wrap(zip(cx.pool, left, right, shape, |x, z| u8::from_f64(libm::rint(*x) + *z as f64))),
            _ => i8::wrap(zip(cx.pool, left, right, shape, |x, z| i8::from_f64(libm::rint(*x) + *z as f64))),
        };
        Ok(vec![Tensor::from_data(shape, data)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::run;

    #[test]
    fn zero_points_by_row_and_column() {
        let a = Tensor::new([2, 2], vec![1u8, 2, 3, 4]).unwrap();
        let b = Tensor::new([2, 2], vec![1i8, -1, 2, 0]).unwrap();
        assert_eq!(run(&MatMulInteger {}, &[&a, &b]).unwrap()[0].to_i64s().unwrap(), [5, -1, 11, -3]);
        let (za, zb) = (Tensor::vector(vec![1u8, 0]), Tensor::vector(vec![0i8, 1]));
        // [[0, 1], [3, 4]] * [[1, -2], [2, -1]]
        assert_eq!(run(&MatMulInteger {}, &[&a, &b, &za, &zb]).unwrap()[0].to_i64s().unwrap(), [2, -1, 11, -10]);
        assert!(run(&MatMulInteger {}, &[&a, &b, &Tensor::vector(vec![1u8, 0, 0])]).is_err());
    }

    #[test]
    fn scaled_and_saturated() {
        let a = Tensor::new([1, 2], vec![200u8, 100]).unwrap();
        let b = Tensor::new([2, 2], vec![1u8, 255, 3, 255]).unwrap();
        let (s, z) = (|v: f32| Tensor::scalar(v), Tensor::scalar(0u8));
        let y = run(&QLinearMatMul {}, &[&a, &s(0.5), &z, &b, &s(0.5), &z, &s(2.0), &Tensor::scalar(7u8)]).unwrap();
        // 500 / 8 = 62.5 rounds to 62.
        assert_eq!(y[0], Tensor::new([1, 2], vec![69u8, 255]).unwrap());
    }
}
