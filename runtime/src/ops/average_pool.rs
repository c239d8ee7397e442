//! Mean over windows: <https://onnx.ai/onnx/operators/onnx__AveragePool.html>.

use crate::{
    Element, Fact, OpError, Tensor, attributes,
    attrs::Attrs,
    ops::{
        InferCx, Operator, RunCx,
        helpers::required,
        max_pool::pool_shape,
        planes::{accumulating, expect_float, for_each_plane, number, outer_taps, output_shapes, plane_sizes, tap_count, tap_row},
        widened,
    },
    scalar::Scalar,
    window::{AutoPad, Axis, Window},
};

attributes! {
    /// `y[n,c,p] = sum over t of x[n, c, s*p - pad_begin + d*t] / count(p)`, over the taps inside the input.
    ///
    /// x `[N, C, D1..Dn]`, y `[N, C, ..]`. `count` is the number of taps inside the input, or with `count_include_pad` inside
    /// the input and its `pads` (a last window of `ceil_mode` may reach beyond both). A window without any gives 0.
    pub struct AveragePool {
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
        /// Whether padding counts as elements.
        pub count_include_pad: bool,
    }
}

impl AveragePool {
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

impl Operator for AveragePool {
    const NAMES: &'static [&'static str] = &["AveragePool"];

    fn name(&self) -> &'static str {
        "AveragePool"
    }

    fn to_attrs(&self) -> Attrs {
        AveragePool::to_attrs(self)
    }

    fn from_attrs(_: &str, attrs: &mut Attrs) -> Result<Self, OpError> {
        AveragePool::from_attrs(attrs)
    }

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "X")?;
        expect_float(x, 0, "X")?;
        Ok(vec![Fact::new(x.dtype, pool_shape(&self.window(), x)?)])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        widened(inputs, |inputs| {
            let x = required(inputs, 0, "X")?;
            let shape = output_shapes(self, &[Some(x)])?.swap_remove(0);
            cx.count(&shape)?;
            let axes = self.window().resolve(&x.shape()[2..])?;
            accumulating!(x, "X", S, v => {
                let mut y = window_sums::<S>(cx, v, &axes, &shape, |x| x);
                divide(cx, &mut y, &axes, self.count_include_pad);
                Ok(vec![Tensor::new(shape, y)?])
            })
        })
    }
}

/// The sum of `f(x)` over each window's taps inside the input, in the taps' row-major order.
pub(crate) fn window_sums<S: Scalar + Element>(
    cx: &RunCx<'_>,
    x: &[S],
    axes: &[Axis],
    shape: &[usize],
    f: impl Fn(S) -> S + Sync,
) -> Vec<S> {
    let mut y = vec![S::ZERO; shape.iter().product()];
    let Some((inner, outer)) = axes.split_last() else { return y };
    let (in_plane, out_plane) = plane_sizes(axes);
    let taps = tap_count(axes);
    for_each_plane(cx, &mut y, out_plane, out_plane.saturating_mul(taps), |i, y| {
        let x = &x[i * in_plane..][..in_plane];
        for (r, y) in y.chunks_mut(inner.output).enumerate() {
            outer_taps(outer, r, &mut |_, row| {
                let x = &x[row * inner.input..][..inner.input];
                for t in 0..inner.kernel {
                    tap_row(inner, t, inner.inside(t), y, x, |y, x| *y = y.add(f(x)));
                }
            });
        }
    });
    y
}

/// Divides each window's sum by its number of elements.
fn divide<S: Scalar>(cx: &RunCx<'_>, y: &mut [S], axes: &[Axis], padding: bool) {
    let Some((inner, outer)) = axes.split_last() else { return };
    let (_, out_plane) = plane_sizes(axes);
    let along = |a: &Axis| (0..a.output).map(|o| a.count(o, padding)).collect::<Vec<_>>();
    let columns: Vec<usize> = along(inner);
    let rows = outer.iter().fold(vec![1], |rows: Vec<usize>, a| {
        let counts = along(a);
        rows.iter().flat_map(|r| counts.iter().map(move |c| r * c)).collect()
    });
    let divisors: Vec<S> = rows.iter().flat_map(|r| columns.iter().map(move |c| number((r * c).max(1)))).collect();
    for_each_plane(cx, y, out_plane, out_plane, |_, y| {
        for (y, &d) in y.iter_mut().zip(&divisors) {
            *y = y.div(d);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{self, close, check_symbolic, random_f32};

    fn pool(kernel: &[i64], strides: &[i64], pads: &[i64], dilations: &[i64], ceil_mode: bool) -> AveragePool {
        AveragePool {
            kernel_shape: kernel.to_vec(),
            strides: strides.to_vec(),
            pads: pads.to_vec(),
            dilations: dilations.to_vec(),
            auto_pad: AutoPad::NotSet,
            ceil_mode,
            count_include_pad: false,
        }
    }

    /// Every output tap by tap.
    fn brute(op: &AveragePool, x: &Tensor, out: &[usize]) -> Tensor {
        let v = x.to_f64s().unwrap();
        let n = op.kernel_shape.len();
        let kernel: Vec<usize> = op.kernel_shape.iter().map(|&k| k as usize).collect();
        let y: Vec<f64> = testing::indices(out).into_iter()
            .map(|o| {
                let (mut sum, mut count) = (0.0, 0);
                'taps: for t in testing::indices(&kernel).into_iter() {
                    let (mut at, mut padding) = (o[0] * x.shape()[1] + o[1], false);
                    for a in 0..n {
                        let size = x.shape()[a + 2] as i64;
                        let p = o[a + 2] as i64 * op.strides[a] + t[a] as i64 * op.dilations[a] - op.pads[a];
                        if p >= size + op.pads[n + a] {
                            continue 'taps;
                        }
                        padding |= p < 0 || p >= size;
                        at = at.wrapping_mul(size as usize).wrapping_add(p as usize);
                    }
                    count += i32::from(!padding || op.count_include_pad);
                    sum += if padding { 0.0 } else { v[at] };
                }
                if count == 0 { 0.0 } else { sum / f64::from(count) }
            })
            .collect();
        Tensor::new(out, y).unwrap()
    }

    #[test]
    fn agrees_with_tap_by_tap() {
        for (shape, mut op) in [
            (vec![3, 2, 7, 6], pool(&[3, 3], &[2, 2], &[1, 1, 1, 1], &[1, 1], false)),
            (vec![1, 3, 8, 5], pool(&[3, 2], &[2, 3], &[0, 1, 2, 0], &[2, 1], true)),
            (vec![2, 1, 9], pool(&[4], &[3], &[3, 0], &[2], true)),
            (vec![1, 2, 4, 5, 6], pool(&[2, 3, 2], &[1, 2, 2], &[0, 1, 1, 1, 0, 1], &[1, 1, 2], true)),
            (vec![1, 1, 4, 4], pool(&[2, 2], &[3, 3], &[2, 2, 2, 2], &[1, 1], false)),
        ] {
            for include in [false, true] {
                op.count_include_pad = include;
                let x = random_f32(&shape, 3);
                let y = testing::run_threads(&op, &[Some(&x)]).unwrap().swap_remove(0);
                close(&y, &brute(&op, &x, y.shape()), 1e-6);
                check_symbolic(&op, &[Some(&x)]);
            }
        }
    }

    #[test]
    fn padding_that_depends_on_the_size() {
        let mut op = pool(&[2], &[1], &[], &[1], false);
        op.auto_pad = AutoPad::SameLower;
        let x = Tensor::new([1, 1, 3], vec![1.0f32, 2.0, 4.0]).unwrap();
        let y = testing::run_threads(&op, &[Some(&x)]).unwrap();
        assert_eq!(y[0].as_slice::<f32>().unwrap(), [1.0, 1.5, 3.0]);
        check_symbolic(&op, &[Some(&x)]);
    }

    #[test]
    fn half_precision_rounds_once() {
        let op = pool(&[3], &[1], &[0, 0], &[1], false);
        let v = [1.0, 1.0 / 2048.0, 1.0 / 2048.0].map(half::f16::from_f32).to_vec();
        let y = testing::run_threads(&op, &[Some(&Tensor::new([1, 1, 3], v).unwrap())]).unwrap();
        assert_eq!(y[0].as_slice::<half::f16>().unwrap()[0], half::f16::from_f32((1.0 + 1.0 / 1024.0) / 3.0));
    }
}
