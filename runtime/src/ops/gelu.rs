//! Gaussian error linear unit: <https://onnx.ai/onnx/operators/onnx__Gelu.html>.

use crate::{
    Data, Element, Fact, OpError, Real, Tensor, attribute_enum, attributes,
    ops::{
        InferCx, Operator, RunCx,
        elementwise::map,
        helpers::{expect_float, fold, required},
        unary::constant,
        widened,
    },
    scalar::{Field, Scalar},
    sys::Pool,
};

attribute_enum! {
    /// Which formula.
    pub enum Approximate {
        /// By the error function.
        None = "none",
        /// By the hyperbolic tangent.
        Tanh = "tanh",
    }
}

attributes! {
    /// `y = 0.5 * x * (1 + erf(x / sqrt(2)))`, or `0.5 * x * (1 + tanh(sqrt(2/pi) * (x + 0.044715 * x^3)))`; same type and
    /// shape. Each step is rounded, as in the composition out of ONNX's Div, Erf, Add and Mul.
    pub struct Gelu {
        /// Which of the two.
        pub approximate: Approximate,
    }
}

impl Gelu {
    fn map<S: Scalar + Element>(&self, v: &[S], pool: &Pool, real: Real) -> Data {
        let (half, cubic) = (S::from_f64(0.5), constant::<S>(0.044_715, real));
        let root = constant::<S>(std::f64::consts::SQRT_2, real);
        let scale = constant::<S>((2.0 / std::f64::consts::PI).sqrt(), real);
        S::wrap(match self.approximate {
            Approximate::None => {
                map(pool, v, |&x| x.mul(x.div(root).apply("Erf", libm::erf).add(S::ONE)).mul(half))
            }
            Approximate::Tanh => map(pool, v, |&x| {
                let inner = x.add(cubic.mul(x.mul(x).mul(x)));
                half.mul(x).mul(S::ONE.add(scale.mul(inner).apply("Tanh", libm::tanh)))
            }),
        })
    }
}

impl Operator for Gelu {
    single!(Gelu, "Gelu");

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "X")?;
        expect_float(x, 0, "X")?;
        Ok(fold(self, inputs).unwrap_or_else(|| vec![Fact::new(x.dtype, x.shape.clone())]))
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        widened(inputs, |inputs| {
            let x = required(inputs, 0, "X")?;
            cx.count(x.shape())?;
            let data = match x.data() {
                Data::F32(v) => self.map::<f32>(v, cx.pool, cx.real),
                Data::F64(v) => self.map::<f64>(v, cx.pool, cx.real),
                Data::Field(v) => self.map::<Field>(v, cx.pool, cx.real),
                _ => {
                    let expected = "a floating-point type";
                    return Err(OpError::InputType { index: 0, name: "X", dtype: x.dtype(), expected });
                }
            };
            Ok(vec![Tensor::from_data(x.shape(), data)?])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{close, numbers, run};

    #[test]
    fn both_formulas() {
        let x = numbers(&[2, 7], 1);
        let of = |f: &dyn Fn(f64) -> f64| {
            let v = x.to_f64s().unwrap();
            Tensor::new(x.shape(), v.iter().map(|&x| f(x) as f32).collect()).unwrap()
        };
        let y = run(&Gelu { approximate: Approximate::None }, &[&x]).unwrap();
        close(&y[0], &of(&|x| 0.5 * x * (1.0 + libm::erf(x / 2f64.sqrt()))), 1e-6);
        let y = run(&Gelu { approximate: Approximate::Tanh }, &[&x]).unwrap();
        let k = (2.0 / std::f64::consts::PI).sqrt();
        close(&y[0], &of(&|x| 0.5 * x * (1.0 + (k * (x + 0.044715 * x * x * x)).tanh())), 1e-6);
    }
}
