//! Maximum over windows: <https://onnx.ai/onnx/operators/onnx__MaxPool.html>.

use crate::{
    DType, Data, Dim, Element, Fact, OpError, Tensor, attributes,
    attrs::Attrs,
    ops::{
        InferCx, Operator, RunCx,
        helpers::{expect_dtype, required},
        planes::{for_each_plane, outer_taps, output_shapes, plane_sizes, shape_error, tap_count, tap_row},
    },
    scalar::{Field, Scalar},
    window::{AutoPad, Axis, Window},
};

attributes! {
    /// `y[n,c,p] = max over t of x[n, c, s*p - pad_begin + d*t]`, over the taps inside the input; the lowest value of the type
    /// if there are none.
    ///
    /// x `[N, C, D1..Dn]`, y `[N, C, ..]`. With `indices` a second result of the same shape (i64): where in the whole of x the
    /// maximum stands, the first of equal ones in row-major order, -1 if there is no tap.
    pub struct MaxPool {
        /// Taps along each spatial axis.
        pub kernel_shape: Vec<i64>,
        /// Step between outputs, one per spatial axis, at least 1.
        pub strides: Vec<i64>,
        /// Padding before (first half) and after each spatial axis, at least 0; empty unless `auto_pad` is NOTSET.
        pub pads: Vec<i64>,
        /// Step between taps, one per spatial axis, at least 1.
        pub dilations: Vec<i64>,
        /// Padding that depends on the input's size; the importer makes it explicit where the sizes allow.
        pub auto_pad: AutoPad,
        /// Whether a last window that begins inside the padded input but does not fit counts.
        pub ceil_mode: bool,
        /// Whether the second result is wanted.
        pub indices: bool,
        /// Whether `indices` count the first spatial axis fastest.
        pub column_major: bool,
    }
}

/// The sizes that a pool of these windows has for `x` `[N, C, D1..Dn]`.
///
/// # Errors
/// If the window is malformed or does not fit.
pub(crate) fn pool_shape(window: &Window<'_>, x: &Fact) -> Result<Vec<Dim>, OpError> {
    window.check()?;
    if window.rank() == 0 || x.rank() != window.rank() + 2 {
        let expected = format!("{} dimensions are needed by the kernel {:?}", window.rank().max(1) + 2, window.kernel);
        return Err(shape_error(x, 0, "X", expected));
    }
    if let Some(p) = window.pads.iter().find(|p| **p < 0) {
        return Err(OpError::Attribute { name: "pads", problem: format!("{p} is negative") });
    }
    let mut shape = x.shape[..2].to_vec();
    shape.extend(window.output(&x.shape[2..])?);
    Ok(shape)
}

impl MaxPool {
    /// The window.
    #[must_use]
    pub fn window(&self) -> Window<'_> {
        Window {
            kernel: &self.kernel_shape,
            strides: &self.strides,
            pads: &self.pads,
            dilations: &self.dilations,
            auto_pad: self.auto_pad,
            ceil_mode: self.ceil_mode,
            may_be_empty: true,
        }
    }
}

impl Operator for MaxPool {
    const NAMES: &'static [&'static str] = &["MaxPool"];

    fn name(&self) -> &'static str {
        "MaxPool"
    }

    fn to_attrs(&self) -> Attrs {
        MaxPool::to_attrs(self)
    }

    fn from_attrs(_: &str, attrs: &mut Attrs) -> Result<Self, OpError> {
        MaxPool::from_attrs(attrs)
    }

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "X")?;
        let ok = |d: DType| d.is_float() || matches!(d, DType::I8 | DType::U8);
        expect_dtype(x, 0, "X", "a floating-point type, i8 or u8", ok)?;
        let shape = pool_shape(&self.window(), x)?;
        let mut facts = vec![Fact::new(x.dtype, shape.clone())];
        if self.indices {
            facts.push(Fact::new(DType::I64, shape));
        }
        Ok(facts)
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = required(inputs, 0, "X")?;
        let shape = output_shapes(self, &inputs[..1])?.swap_remove(0);
        cx.count(&shape)?;
        let axes = self.window().resolve(&x.shape()[2..])?;
        // A comparison that hands NaN on, as `Scalar::max` does.
        macro_rules! pool {
            ($v:expr, $empty:expr, $max:expr, $above:expr) => {{
                let mut results = vec![Tensor::from_data(shape.clone(), maxima(cx, $v, &axes, &shape, $empty, $max))?];
                if self.indices {
                    results.push(Tensor::new(shape.clone(), positions(cx, $v, &axes, &shape, self.column_major, $above))?);
                }
                Ok(results)
            }};
        }
        macro_rules! pool_real {
            ($v:expr, $t:ty) => {
                pool!($v, <$t as Scalar>::from_f64(f64::NEG_INFINITY), |a, b| Scalar::max(a, b), |a: $t, b: $t| a > b
                    || (a.is_nan() && !b.is_nan()))
            };
        }
        match x.data() {
            Data::F32(v) => pool_real!(v, f32),
            Data::F64(v) => pool_real!(v, f64),
            Data::F16(v) => pool_real!(v, half::f16),
            Data::BF16(v) => pool_real!(v, half::bf16),
            Data::I8(v) => pool!(v, i8::MIN, |a, b| a.max(b), |a, b| a > b),
            Data::U8(v) => pool!(v, u8::MIN, |a, b| a.max(b), |a, b| a > b),
            Data::Field(v) => {
                pool!(v, Field::from_f64(f64::NEG_INFINITY), Scalar::max, |a: Field, b: Field| a.get() > b.get())
            }
            _ => Err(OpError::InputType { index: 0, name: "X", dtype: x.dtype(), expected: "a floating-point type" }),
        }
    }
}

fn maxima<T: Element + Copy>(
    cx: &RunCx<'_>,
    x: &[T],
    axes: &[Axis],
    shape: &[usize],
    empty: T,
    max: impl Fn(T, T) -> T + Sync,
) -> Data {
    let Some((inner, outer)) = axes.split_last() else { return T::wrap(Vec::new()) };
    let (in_plane, out_plane) = plane_sizes(axes);
    let taps = tap_count(axes);
    let mut y = vec![empty; shape.iter().product()];
    for_each_plane(cx, &mut y, out_plane, out_plane.saturating_mul(taps), |i, y| {
        let x = &x[i * in_plane..][..in_plane];
        for (r, y) in y.chunks_mut(inner.output).enumerate() {
            let mut first = true;
            outer_taps(outer, r, &mut |_, row| {
                let x = &x[row * inner.input..][..inner.input];
                // Ranges begin ever earlier as the tap advances, so outputs before the last begin are new to this row.
                let mut seen = if first { inner.output } else { 0 };
                for t in 0..inner.kernel {
                    let range = inner.inside(t);
                    let split = seen.clamp(range.start, range.end);
                    tap_row(inner, t, range.start..split, y, x, |y, x| *y = x);
                    tap_row(inner, t, split..range.end, y, x, |y, x| *y = max(*y, x));
                    seen = seen.min(range.start);
                }
                first = false;
            });
        }
    });
    T::wrap(y)
}

fn positions<T: Copy + Sync>(
    cx: &RunCx<'_>,
    x: &[T],
    axes: &[Axis],
    shape: &[usize],
    column_major: bool,
    above: impl Fn(T, T) -> bool + Sync,
) -> Vec<i64> {
    let Some((inner, outer)) = axes.split_last() else { return Vec::new() };
    let (in_plane, out_plane) = plane_sizes(axes);
    let taps = tap_count(axes);
    let mut indices = vec![-1i64; shape.iter().product()];
    for_each_plane(cx, &mut indices, out_plane, out_plane.saturating_mul(taps), |i, out| {
        let x = &x[i * in_plane..][..in_plane];
        for (r, out) in out.chunks_mut(inner.output).enumerate() {
            for (o, best) in out.iter_mut().enumerate() {
                let mut found: Option<(T, usize)> = None;
                outer_taps(outer, r, &mut |_, row| {
                    for p in (0..inner.kernel).filter_map(|t| inner.source(o, t)) {
                        let position = row * inner.input + p;
                        if found.is_none_or(|(v, _)| above(x[position], v)) {
                            found = Some((x[position], position));
                        }
                    }
                });
                if let Some((_, p)) = found {
                    let p = if column_major { transposed(axes, p) } else { p };
                    *best = (i * in_plane + p) as i64;
                }
            }
        }
    });
    indices
}

/// The row-major position `p` of a plane counted with the first axis fastest.
fn transposed(axes: &[Axis], mut p: usize) -> usize {
    let mut coordinates = vec![0; axes.len()];
    for (c, a) in coordinates.iter_mut().zip(axes).rev() {
        (*c, p) = (p % a.input, p / a.input);
    }
    coordinates.iter().zip(axes).rev().fold(0, |at, (c, a)| at * a.input + c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{self, check_symbolic, random_f32};

    fn pool(kernel: &[i64], strides: &[i64], pads: &[i64], dilations: &[i64], ceil_mode: bool) -> MaxPool {
        MaxPool {
            kernel_shape: kernel.to_vec(),
            strides: strides.to_vec(),
            pads: pads.to_vec(),
            dilations: dilations.to_vec(),
            auto_pad: AutoPad::NotSet,
            ceil_mode,
            indices: true,
            column_major: false,
        }
    }

    /// Every output by looking at every element of the plane.
    fn brute(op: &MaxPool, x: &Tensor, out: &[usize]) -> (Vec<f32>, Vec<i64>) {
        let v = x.as_slice::<f32>().unwrap();
        let n = op.kernel_shape.len();
        let (sizes, plane): (&[usize], usize) = (&x.shape()[2..], x.shape()[2..].iter().product());
        testing::indices(out).into_iter()
            .map(|o| {
                let base = (o[0] * x.shape()[1] + o[1]) * plane;
                let mut best = (f32::NEG_INFINITY, -1);
                for (at, p) in testing::indices(sizes).into_iter().enumerate() {
                    let covered = (0..n).all(|a| {
                        let d = p[a] as i64 + op.pads[a] - o[a + 2] as i64 * op.strides[a];
                        d >= 0 && d % op.dilations[a] == 0 && d / op.dilations[a] < op.kernel_shape[a]
                    });
                    if covered && (best.1 < 0 || v[base + at] > best.0) {
                        best = (v[base + at], (base + at) as i64);
                    }
                }
                best
            })
            .unzip()
    }

    #[test]
    fn agrees_with_looking_at_everything() {
        for (shape, op) in [
            (vec![3, 2, 7, 6], pool(&[3, 3], &[2, 2], &[1, 1, 1, 1], &[1, 1], false)),
            (vec![1, 3, 8, 5], pool(&[3, 2], &[2, 3], &[0, 1, 2, 0], &[2, 1], true)),
            (vec![2, 1, 9], pool(&[4], &[1], &[3, 0], &[2], false)),
            (vec![1, 2, 4, 5, 6], pool(&[2, 3, 2], &[1, 2, 2], &[0, 1, 1, 1, 0, 1], &[1, 1, 2], true)),
            (vec![1, 1, 4, 4], pool(&[2, 2], &[3, 3], &[2, 2, 2, 2], &[1, 1], false)),
            (vec![0, 2, 4, 4], pool(&[2, 2], &[2, 2], &[0, 0, 0, 0], &[1, 1], false)),
        ] {
            let x = random_f32(&shape, 7);
            let results = testing::run_threads(&op, &[Some(&x)]).unwrap();
            let (y, at) = brute(&op, &x, results[0].shape());
            assert_eq!(results[0].as_slice::<f32>().unwrap(), y, "{op:?}");
            assert_eq!(results[1].as_slice::<i64>().unwrap(), at, "{op:?}");
            check_symbolic(&op, &[Some(&x)]);
        }
    }

    #[test]
    fn integers_and_nan() {
        let op = pool(&[2], &[1], &[0, 0], &[1], false);
        let x = Tensor::new([1, 1, 3], vec![-3i8, -7, 5]).unwrap();
        assert_eq!(testing::run_threads(&op, &[Some(&x)]).unwrap()[0].as_slice::<i8>().unwrap(), [-3, 5]);
        let x = Tensor::new([1, 1, 3], vec![1.0f32, f32::NAN, 5.0]).unwrap();
        let results = testing::run_threads(&op, &[Some(&x)]).unwrap();
        assert!(results[0].as_slice::<f32>().unwrap().iter().all(|v| v.is_nan()));
        assert_eq!(results[1].as_slice::<i64>().unwrap(), [1, 1]);
    }

    #[test]
    fn indices_by_columns() {
        let mut op = pool(&[2, 2], &[2, 2], &[0, 0, 0, 0], &[1, 1], false);
        op.column_major = true;
        let x = Tensor::new([1, 1, 2, 3], vec![0.0f32, 9.0, 0.0, 0.0, 0.0, 0.0]).unwrap();
        assert_eq!(testing::run_threads(&op, &[Some(&x)]).unwrap()[1].as_slice::<i64>().unwrap(), [2]);
    }

    #[test]
    fn misfits_are_refused() {
        let op = pool(&[5], &[1], &[0, 0], &[1], false);
        let x = random_f32(&[1, 1, 3], 1);
        assert!(matches!(testing::run_threads(&op, &[Some(&x)]), Err(OpError::InputShape { index: 0, .. })));
        assert!(matches!(testing::run_threads(&op, &[Some(&random_f32(&[3], 1))]), Err(OpError::InputShape { .. })));
        assert!(matches!(testing::run_threads(&op, &[]), Err(OpError::MissingInput { .. })));
        let op = pool(&[2], &[1], &[-1, 0], &[1], false);
        assert!(matches!(testing::run_threads(&op, &[Some(&x)]), Err(OpError::Attribute { name: "pads", .. })));
    }
}
