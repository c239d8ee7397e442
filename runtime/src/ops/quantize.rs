//! Linear quantisation: <https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html>,
//! <https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html>, <https://onnx.ai/onnx/operators/onnx__DynamicQuantizeLinear.html>.

use crate::{
    DType, Data, Dim, Fact, OpError, Tensor, attributes, match_integer,
    ops::{
        InferCx, Operator, RunCx,
        elementwise::{map, same_type, shape_error},
        helpers::{expect_dtype, expect_float, fold, normalize_axis, optional, required},
        integer::Integer,
    },
};

attributes! {
    /// `y = saturate(round(x / scale) + zero_point)`, ties to even. Operands: x, scale, zero point (optional, the type of y and the
    /// shape of the scale). The scale is one number, one for each index along `axis`, or of the rank of x with one for each block of
    /// `block_size` indices along `axis`.
    pub struct QuantizeLinear {
        /// The axis that scales vary along; negative ones count from the back.
        pub axis: i64,
        /// Indices that share a scale; 0 if the scale has not the rank of x.
        pub block_size: i64,
        /// The type of y where no zero point gives it; otherwise u8.
        pub output_dtype: Option<DType>,
        /// The type that the quotient is rounded to; otherwise that of the scale.
        pub precision: Option<DType>,
    }
}

attributes! {
    /// `y = (x - zero_point) * scale`, in the type of y; operands and attributes as those of [`QuantizeLinear`].
    pub struct DequantizeLinear {
        /// The axis that scales vary along; negative ones count from the back.
        pub axis: i64,
        /// Indices that share a scale; 0 if the scale has not the rank of x.
        pub block_size: i64,
        /// The type of y; otherwise that of the scale.
        pub output_dtype: Option<DType>,
    }
}

attributes! {
    /// Quantises x (f32) to u8 by its own range: y (u8), its scale (f32) `(max(x, 0) - min(x, 0)) / 255` and its zero point (u8)
    /// `saturate(round(-min(x, 0) / scale))`.
    pub struct DynamicQuantizeLinear {}
}

fn small(d: DType) -> bool {
    matches!(d, DType::U8 | DType::I8 | DType::U16 | DType::I16)
}

/// The range of a quantised type.
fn range(d: DType) -> (f64, f64) {
    match d {
        DType::U8 => (0.0, 255.0),
        DType::I8 => (-128.0, 127.0),
        DType::U16 => (0.0, 65535.0),
        _ => (-32768.0, 32767.0),
    }
}

/// `v` rounded to `dtype`.
fn rounded(v: f64, dtype: DType) -> f64 {
    match dtype {
        DType::F32 => f64::from(v as f32),
        DType::F16 => half::f16::from_f64(v).into(),
        DType::BF16 => half::bf16::from_f64(v).into(),
        _ => v,
    }
}

/// Where the scale of each element lies.
#[derive(Debug, Clone, Copy)]
struct Scales {
    /// Elements behind one index of the axis.
    inner: usize,
    /// Indices of the axis.
    size: usize,
    /// Indices that share a scale.
    block: usize,
    /// Scales along the axis.
    count: usize,
    /// Whether scales vary along the other axes too.
    blocked: bool,
}

impl Scales {
    fn new(x: &[usize], scale: &[usize], axis: i64, block_size: i64) -> Result<Scales, OpError> {
        let misfit = |expected: String| OpError::InputShape { index: 1, name: "scale", shape: format!("{scale:?}"), expected };
        if scale.iter().product::<usize>() == 1 && block_size == 0 {
            return Ok(Scales { inner: 1, size: 1, block: 1, count: 1, blocked: false });
        }
        let axis = normalize_axis(axis, x.len(), "axis")?;
        let (size, inner) = (x[axis], x[axis + 1..].iter().product());
        if block_size == 0 {
            if scale != [size] {
                return Err(misfit(format!("[{size}] or one number is needed")));
            }
            return Ok(Scales { inner, size, block: 1, count: size, blocked: false });
        }
        let block = usize::try_from(block_size)
            .map_err(|_| OpError::Attribute { name: "block_size", problem: format!("{block_size} is negative") })?;
        let mut expected = x.to_vec();
        expected[axis] = size.div_ceil(block);
        if scale != expected {
            return Err(misfit(format!("{expected:?} is needed for blocks of {block}")));
        }
        Ok(Scales { inner, size, block, count: size.div_ceil(block), blocked: true })
    }

    fn of(&self, element: usize) -> usize {
        if self.count == 1 && !self.blocked {
            return 0;
        }
        let (j, i, o) = (element % self.inner, element / self.inner % self.size, element / self.inner / self.size);
        if self.blocked { (o * self.count + i / self.block) * self.inner + j } else { i }
    }
}

/// Checks what both directions share: shapes of the scale and of the zero point.
fn check(inputs: &[Option<&Fact>], axis: i64, block_size: i64) -> Result<(), OpError> {
    let (x, scale) = (required(inputs, 0, "x")?, required(inputs, 1, "scale")?);
    expect_float(scale, 1, "scale")?;
    if let Some(zero) = optional(inputs, 2) {
        let differ = zero.rank() == scale.rank()
            && zero.shape.iter().zip(&scale.shape).any(|(z, s)| z.equals(s) == Some(false));
        if differ || (zero.rank() != scale.rank() && zero.element_count().equals(&scale.element_count()) == Some(false)) {
            return Err(shape_error(2, "zero_point", zero, "that of the scale is needed"));
        }
    }
    if let (Some(x), Some(s)) = (x.fixed_shape(), scale.fixed_shape()) {
        Scales::new(&x, &s, axis, block_size)?;
    }
    Ok(())
}

/// The zero points, 0 for each scale if there are none.
fn zero_points(zero: Option<&Tensor>, scales: usize) -> Result<Vec<i64>, OpError> {
    match zero {
        None => Ok(vec![0; scales]),
        Some(z) => match z.to_i64s() {
            Some(v) if v.len() == scales => Ok(v),
            Some(_) => {
                Err(shape_error(2, "zero_point", &Fact::fixed(z.dtype(), z.shape()), format!("{scales} elements are needed")))
            }
            None => Err(OpError::InputType { index: 2, name: "zero_point", dtype: z.dtype(), expected: "an integer type" }),
        },
    }
}

fn floats(t: &Tensor, index: usize, name: &'static str) -> Result<Vec<f64>, OpError> {
    if let Data::Field(_) = t.data() {
        return Err(OpError::Unsupported("quantisation of field elements".into()));
    }
    let wrong = || OpError::InputType { index, name, dtype: t.dtype(), expected: "a number type" };
    match t.to_f64s() {
        Some(v) => Ok(v),
        None => match_integer!(t.data(), v => Ok(v.iter().map(|x| Integer::to_f64(*x)).collect()), else Err(wrong())),
    }
}

/// Integers of `dtype` from whole numbers in its range.
fn stored(v: &[f64], dtype: DType) -> Data {
    fn cast<T: Integer>(v: &[f64]) -> Data {
        T::wrap(v.iter().map(|&x| T::from_f64(x)).collect())
    }
    match dtype {
        DType::U8 => cast::<u8>(v),
        DType::I8 => cast::<i8>(v),
        DType::U16 => cast::<u16>(v),
        _ => cast::<i16>(v),
    }
}

impl QuantizeLinear {
    fn dtype(&self, zero: Option<DType>) -> Result<DType, OpError> {
        let dtype = zero.or(self.output_dtype).unwrap_or(DType::U8);
        if let (Some(z), Some(o)) = (zero, self.output_dtype)
            && z != o
        {
            let problem = format!("{o}, but the zero point is {z}");
            return Err(OpError::Attribute { name: "output_dtype", problem });
        }
        if small(dtype) { Ok(dtype) } else { Err(OpError::Unsupported(format!("quantisation to {dtype}"))) }
    }
}

impl Operator for QuantizeLinear {
    single!(QuantizeLinear, "QuantizeLinear");

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "x")?;
        expect_dtype(x, 0, "x", "a floating-point type or i32", |d| d.is_float() || d == DType::I32)?;
        check(inputs, self.axis, self.block_size)?;
        let dtype = self.dtype(optional(inputs, 2).map(|z| z.dtype))?;
        Ok(fold(self, inputs).unwrap_or_else(|| vec![Fact::new(dtype, x.shape.clone())]))
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, scale, zero) = (required(inputs, 0, "x")?, required(inputs, 1, "scale")?, optional(inputs, 2));
        let dtype = self.dtype(zero.map(Tensor::dtype))?;
        cx.count(x.shape())?;
        let at = Scales::new(x.shape(), scale.shape(), self.axis, self.block_size)?;
        let (v, scales) = (floats(x, 0, "x")?, floats(scale, 1, "scale")?);
        let zeros = zero_points(zero, scales.len())?;
        let precision = cx.stored(self.precision.unwrap_or(scale.dtype()));
        let (low, high) = range(dtype);
        let y: Vec<f64> = v
            .iter()
            .enumerate()
            .map(|(i, x)| {
                let s = at.of(i);
                (libm::rint(rounded(x / scales[s], precision)) + zeros[s] as f64).clamp(low, high)
            })
            .collect();
        Ok(vec![Tensor::from_data(x.shape(), stored(&y, dtype))?])
    }
}

impl Operator for DequantizeLinear {
    single!(DequantizeLinear, "DequantizeLinear");

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let (x, scale) = (required(inputs, 0, "x")?, required(inputs, 1, "scale")?);
        if !small(x.dtype) && x.dtype != DType::I32 {
            return Err(OpError::Unsupported(format!("dequantisation of {}", x.dtype)));
        }
        if let Some(zero) = optional(inputs, 2) {
            same_type(x.dtype, zero.dtype, 2, "zero_point")?;
        }
        check(inputs, self.axis, self.block_size)?;
        let dtype = self.output_dtype.unwrap_or(scale.dtype);
        if !dtype.is_float() {
            return Err(OpError::Unsupported(format!("dequantisation to {dtype}")));
        }
        Ok(fold(self, inputs).unwrap_or_else(|| vec![Fact::new(dtype, x.shape.clone())]))
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, scale, zero) = (required(inputs, 0, "x")?, required(inputs, 1, "scale")?, optional(inputs, 2));
        cx.count(x.shape())?;
        let at = Scales::new(x.shape(), scale.shape(), self.axis, self.block_size)?;
        let (v, scales) = (floats(x, 0, "x")?, floats(scale, 1, "scale")?);
        let zeros = zero_points(zero, scales.len())?;
        let dtype = cx.stored(self.output_dtype.unwrap_or(scale.dtype()));
        let y: Vec<f64> = v
            .iter()
            .enumerate()
            .map(|(i, x)| {
                let s = at.of(i);
                rounded(x - zeros[s] as f64, dtype) * scales[s]
            })
            .collect();
        Ok(vec![Tensor::new(x.shape(), y)?.rounded_to(dtype)])
    }
}

impl Operator for DynamicQuantizeLinear {
    single!(DynamicQuantizeLinear, "DynamicQuantizeLinear");

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "x")?;
        expect_dtype(x, 0, "x", "f32", |d| d == DType::F32)?;
        let scalar = |d| Fact::new(d, Vec::<Dim>::new());
        Ok(vec![Fact::new(DType::U8, x.shape.clone()), scalar(DType::F32), scalar(DType::U8)])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = required(inputs, 0, "x")?;
        cx.count(x.shape())?;
        let precision = cx.stored(DType::F32);
        let v = floats(x, 0, "x")?;
        let low = v.iter().fold(0.0f64, |a, &x| a.min(x));
        let high = v.iter().fold(0.0f64, |a, &x| a.max(x));
        // Of nothing but zeros any scale will do.
        let scale = match rounded(rounded(high - low, precision) / 255.0, precision) {
            0.0 => 1.0,
            s => s,
        };
        let zero = libm::rint(rounded(-low / scale, precision)).clamp(0.0, 255.0);
        let y = map(cx.pool, &v, |x| u8::from_f64((libm::rint(rounded(x / scale, precision)) + zero).clamp(0.0, 255.0)));
        let scale = Tensor::scalar(scale).rounded_to(precision);
        Ok(vec![Tensor::new(x.shape(), y)?, scale, Tensor::scalar(u8::from_f64(zero))])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::run;

    fn quantize(axis: i64, block_size: i64) -> QuantizeLinear {
        QuantizeLinear { axis, block_size, output_dtype: None, precision: None }
    }

    fn dequantize(axis: i64, block_size: i64) -> DequantizeLinear {
        DequantizeLinear { axis, block_size, output_dtype: None }
    }

    #[test]
    fn one_scale_saturates_and_rounds_to_even() {
        let x = Tensor::vector(vec![0f32, 2.0, 3.0, 1000.0, -254.0, -1000.0, 1.0]);
        let (s, z) = (Tensor::scalar(2f32), Tensor::scalar(128u8));
        let y = run(&quantize(1, 0), &[&x, &s, &z]).unwrap();
        assert_eq!(y[0], Tensor::vector(vec![128u8, 129, 130, 255, 1, 0, 128]));
        let back = run(&dequantize(1, 0), &[&y[0], &s, &z]).unwrap();
        assert_eq!(back[0], Tensor::vector(vec![0f32, 2.0, 4.0, 254.0, -254.0, -256.0, 0.0]));
        let y = run(&quantize(1, 0), &[&Tensor::vector(vec![-3f32, 700.0]), &s]).unwrap();
        assert_eq!(y[0], Tensor::vector(vec![0u8, 255]));
    }

    #[test]
    fn scales_along_an_axis_and_in_blocks() {
        let x = Tensor::new([2, 3, 1], vec![1i8, 2, 3, 4, 5, 6]).unwrap();
        let s = Tensor::vector(vec![1f32, 10.0, 100.0]);
        let z = Tensor::vector(vec![0i8, 1, 2]);
        let y = run(&dequantize(-2, 0), &[&x, &s, &z]).unwrap();
        assert_eq!(y[0].as_slice::<f32>().unwrap(), [1.0, 10.0, 100.0, 4.0, 40.0, 400.0]);
        assert!(run(&dequantize(0, 0), &[&x, &s, &z]).is_err());
        let s = Tensor::new([2, 2, 1], vec![1f32, 10.0, 2.0, 20.0]).unwrap();
        let y = run(&dequantize(1, 2), &[&x, &s]).unwrap();
        assert_eq!(y[0].as_slice::<f32>().unwrap(), [1.0, 2.0, 30.0, 8.0, 10.0, 120.0]);
        assert_eq!(run(&quantize(1, 2), &[&y[0], &s]).unwrap()[0].to_i64s(), x.to_i64s());
        assert!(run(&dequantize(1, 3), &[&x, &s]).is_err());
        assert!(run(&dequantize(1, -1), &[&x, &s]).is_err());
    }

    #[test]
    fn by_its_own_range() {
        let x = Tensor::vector(vec![0f32, 2.0, -3.0, -2.5, 1.34, 0.5]);
        let y = run(&DynamicQuantizeLinear {}, &[&x]).unwrap();
        assert_eq!(y[0], Tensor::vector(vec![153u8, 255, 0, 26, 221, 179]));
        assert_eq!((&y[1], &y[2]), (&Tensor::scalar(5f32 / 255.0), &Tensor::scalar(153u8)));
        let y = run(&DynamicQuantizeLinear {}, &[&Tensor::vector(Vec::<f32>::new())]).unwrap();
        assert_eq!(y[2], Tensor::scalar(0u8));
    }
}
