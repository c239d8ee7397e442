//! Norm over windows: <https://onnx.ai/onnx/operators/onnx__LpPool.html>.

use crate::{
    Fact, OpError, Tensor, attributes,
    attrs::Attrs,
    ops::{
        InferCx, Operator, RunCx,
        average_pool::window_sums,
        helpers::required,
        max_pool::pool_shape,
        planes::{accumulating, expect_float, output_shapes, sqrt},
        widened,
    },
    scalar::Scalar,
    window::{AutoPad, Window},
};

attributes! {
    /// `y[n,c,q] = (sum over t of |x[n, c, s*q - pad_begin + d*t]|^p)^(1/p)`, zeros beyond the border.
    ///
    /// x `[N, C, D1..Dn]`, y `[N, C, ..]`.
    pub struct LpPool {
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
        /// The exponent, at least 1.
        pub p: i64,
    }
}

impl LpPool {
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

/// Requires a norm's exponent to be positive.
///
/// # Errors
/// [`OpError::Attribute`].
pub(crate) fn check_exponent(p: i64) -> Result<(), OpError> {
    if (1..=1 << 20).contains(&p) {
        return Ok(());
    }
    Err(OpError::Attribute { name: "p", problem: format!("{p} is not the exponent of a norm") })
}

/// `|x|^p`.
#[inline(always)]
pub(crate) fn power<S: Scalar>(x: S, p: i64) -> S {
    match p {
        1 => x.apply("Abs", libm::fabs),
        2 => x.mul(x),
        p => x.apply("Abs", libm::fabs).apply2(S::from_f64(p as f64), "Pow", libm::pow),
    }
}

/// `x^(1/p)` of a sum of [`power`]s.
pub(crate) fn root<S: Scalar>(x: S, p: i64) -> S {
    match p {
        1 => x,
        2 => sqrt(x),
        p => x.apply2(S::from_f64(1.0 / p as f64), "Pow", libm::pow),
    }
}

impl Operator for LpPool {
    const NAMES: &'static [&'static str] = &["LpPool"];

    fn name(&self) -> &'static str {
        "LpPool"
    }

    fn to_attrs(&self) -> Attrs {
        LpPool::to_attrs(self)
    }

    fn from_attrs(_: &str, attrs: &mut Attrs) -> Result<Self, OpError> {
        LpPool::from_attrs(attrs)
    }

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "X")?;
        expect_float(x, 0, "X")?;
        check_exponent(self.p)?;
        Ok(vec![Fact::new(x.dtype, pool_shape(&self.window(), x)?)])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        widened(inputs, |inputs| {
            let x = required(inputs, 0, "X")?;
            let shape = output_shapes(self, &[Some(x)])?.swap_remove(0);
            cx.count(&shape)?;
            let axes = self.window().resolve(&x.shape()[2..])?;
            accumulating!(x, "X", S, v => {
                let mut y = window_sums::<S>(cx, v, &axes, &shape, |x| power(x, self.p));
                y.iter_mut().for_each(|y| *y = root(*y, self.p));
                Ok(vec![Tensor::new(shape, y)?])
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{self, close, check_symbolic};

    fn pool(p: i64) -> LpPool {
        LpPool {
            kernel_shape: vec![2],
            strides: vec![2],
            pads: vec![1, 0],
            dilations: vec![1],
            auto_pad: AutoPad::NotSet,
            ceil_mode: false,
            p,
        }
    }

    #[test]
    fn three_norms() {
        let x = Tensor::new([1, 1, 3], vec![-2.0f64, 3.0, -4.0]).unwrap();
        for (p, expected) in [(1, [2.0, 7.0]), (2, [2.0, 5.0]), (3, [2.0, libm::cbrt(91.0)])] {
            let y = testing::run_threads(&pool(p), &[Some(&x)]).unwrap().swap_remove(0);
            close(&y, &Tensor::new([1, 1, 2], expected.to_vec()).unwrap(), 1e-14);
            check_symbolic(&pool(p), &[Some(&x)]);
        }
    }

    #[test]
    fn no_norm_has_exponent_0() {
        let x = Tensor::new([1, 1, 3], vec![-2.0f64, 3.0, -4.0]).unwrap();
        assert!(matches!(testing::run_threads(&pool(0), &[Some(&x)]), Err(OpError::Attribute { name: "p", .. })));
    }
}
