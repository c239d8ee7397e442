//! Functions of one argument, applied to each element: <https://onnx.ai/onnx/operators/>.

use crate::{
    AttrValue, DType, Data, Dim, Element, Fact, Known, OpError, Real, Tensor, attribute_enum,
    attrs::{self, Attrs},
    match_integer,
    ops::{
        InferCx, Operator, RunCx,
        elementwise::map,
        helpers::{expect_dtype, fold, required},
        integer::Integer,
        widened,
    },
    scalar::{Field, Scalar},
    sys::Pool,
};

attribute_enum! {
    /// Which function. `a` and `b` are the parameters [`Unary::alpha`] and [`Unary::beta`].
    pub enum UnaryKind {
        /// `max(x, 0)`; integers too.
        Relu = "Relu",
        /// `x` where `x >= 0`, else `a*x`.
        LeakyRelu = "LeakyRelu",
        /// `x` where `x >= 0`, else `a*(exp(x) - 1)`.
        Elu = "Elu",
        /// `b*x` where `x > 0`, else `b*a*(exp(x) - 1)`; ONNX calls b gamma.
        Selu = "Selu",
        /// `max(x, 0) + min(a*(exp(x/a) - 1), 0)`.
        Celu = "Celu",
        /// `x` where `x > a`, else 0.
        ThresholdedRelu = "ThresholdedRelu",
        /// `max(0, min(1, a*x + b))`.
        HardSigmoid = "HardSigmoid",
        /// `x * HardSigmoid(x)` with `a = 1/6`, `b = 0.5`.
        HardSwish = "HardSwish",
        /// `1 / (1 + exp(-x))`.
        Sigmoid = "Sigmoid",
        /// `ln(1 + exp(x))`.
        Softplus = "Softplus",
        /// `x / (1 + |x|)`.
        Softsign = "Softsign",
        /// Hyperbolic tangent.
        Tanh = "Tanh",
        /// `x * Tanh(Softplus(x))`.
        Mish = "Mish",
        /// `x * Sigmoid(a*x)`.
        Swish = "Swish",
        /// The error function.
        Erf = "Erf",
        /// `e^x`.
        Exp = "Exp",
        /// Natural logarithm.
        Log = "Log",
        /// Square root.
        Sqrt = "Sqrt",
        /// `1 / x`.
        Reciprocal = "Reciprocal",
        /// `-x`; signed integers too.
        Neg = "Neg",
        /// `|x|`; integers too.
        Abs = "Abs",
        /// 1, 0 or -1; integers too.
        Sign = "Sign",
        /// The largest integer that is not larger.
        Floor = "Floor",
        /// The smallest integer that is not smaller.
        Ceil = "Ceil",
        /// The nearest integer, the even one of two.
        Round = "Round",
        /// Sine.
        Sin = "Sin",
        /// Cosine.
        Cos = "Cos",
        /// Tangent.
        Tan = "Tan",
        /// Inverse sine.
        Asin = "Asin",
        /// Inverse cosine.
        Acos = "Acos",
        /// Inverse tangent.
        Atan = "Atan",
        /// Hyperbolic sine.
        Sinh = "Sinh",
        /// Hyperbolic cosine.
        Cosh = "Cosh",
        /// Inverse hyperbolic sine.
        Asinh = "Asinh",
        /// Inverse hyperbolic cosine.
        Acosh = "Acosh",
        /// Inverse hyperbolic tangent.
        Atanh = "Atanh",
        /// `x - b` where `x > a`, `x + b` where `x < -a`, else 0; ONNX calls them lambd and bias.
        Shrink = "Shrink",
    }
}

impl UnaryKind {
    /// ONNX's defaults of the parameters; `None` where the function has none.
    #[must_use]
    pub fn defaults(self) -> (Option<f32>, Option<f32>) {
        match self {
            UnaryKind::LeakyRelu => (Some(0.01), None),
            UnaryKind::Elu | UnaryKind::Celu | UnaryKind::ThresholdedRelu | UnaryKind::Swish => (Some(1.0), None),
            UnaryKind::Selu => (Some(1.673_263_2), Some(1.050_701)),
            UnaryKind::HardSigmoid => (Some(0.2), Some(0.5)),
            UnaryKind::Shrink => (Some(0.5), Some(0.0)),
            _ => (None, None),
        }
    }

    /// Whether the function is defined on this type.
    #[must_use]
    pub fn takes(self, dtype: DType) -> bool {
        let signed = matches!(dtype, DType::I8 | DType::I16 | DType::I32 | DType::I64);
        dtype.is_float()
            || match self {
                UnaryKind::Abs | UnaryKind::Sign => dtype.is_integer(),
                UnaryKind::Neg | UnaryKind::Relu => signed,
                _ => false,
            }
    }
}

/// `y = f(x)`, elementwise, same type and shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Unary {
    /// The function.
    pub kind: UnaryKind,
    /// First parameter, of the functions that have one.
    pub alpha: Option<f32>,
    /// Second parameter, of the functions that have two.
    pub beta: Option<f32>,
}

/// `x` where `x >= 0`, else `slope*x`. In the field `max(x, 0) + slope*min(x, 0)`, which is linear in the slope.
#[inline(always)]
pub(crate) fn leaky<S: Scalar>(x: S, slope: S) -> S {
    match x.to_f64() {
        Some(v) if v < 0.0 => slope.mul(x),
        Some(_) => x,
        None => x.max(S::ZERO).add(slope.mul(x.min(S::ZERO))),
    }
}

/// `1 / (1 + exp(-x))`.
#[inline(always)]
pub(crate) fn sigmoid<S: Scalar>(x: S) -> S {
    x.apply("Sigmoid", |x| 1.0 / (1.0 + libm::exp(-x)))
}

fn softplus<S: Scalar>(x: S) -> S {
    x.apply("Softplus", |x| if x > 0.0 { x + libm::log1p(libm::exp(-x)) } else { libm::log1p(libm::exp(x)) })
}

fn hard_sigmoid<S: Scalar>(x: S, a: S, b: S) -> S {
    a.mul(x).add(b).min(S::ONE).max(S::ZERO)
}

/// A constant of a formula as the run's numbers hold it. Where f64 or the field stands for f32, it is the f32 that an
/// f32 model would hold, so that an operator and its composition out of others agree.
pub(crate) fn constant<S: Scalar>(v: f64, real: Real) -> S {
    match real {
        Real::Native => S::from_f64(v),
        Real::F64 | Real::Field => S::from_f64(f64::from(v as f32)),
    }
}

impl Unary {
    /// The function with ONNX's default parameters.
    #[must_use]
    pub fn new(kind: UnaryKind) -> Unary {
        let (alpha, beta) = kind.defaults();
        Unary { kind, alpha, beta }
    }

    fn map<S: Scalar + Element>(&self, v: &[S], pool: &Pool, real: Real) -> Data {
        use UnaryKind as K;
        let (da, db) = self.kind.defaults();
        let alpha = f64::from(self.alpha.or(da).unwrap_or_default());
        let beta = f64::from(self.beta.or(db).unwrap_or_default());
        let (a, b): (S, S) = (S::from_f64(alpha), S::from_f64(beta));
        // Natively not looked at; in the field a key that depends on both parameters.
        let key = a.apply2(b, "parameters", |a, _| a);
        // Floats stay in f64 within `f` and are rounded once.
        macro_rules! function {
            ($name:expr, $f:expr) => {
                map(pool, v, |x| x.apply($name, $f))
            };
        }
        let name = self.kind.text();
        S::wrap(match self.kind {
            K::Relu => map(pool, v, |x| x.max(S::ZERO)),
            K::LeakyRelu => map(pool, v, |&x| leaky(x, a)),
            K::Elu => map(pool, v, |x| {
                x.apply2(key, name, |x, _| if x < 0.0 { alpha * libm::expm1(x) } else { x })
            }),
            K::Selu => map(pool, v, |x| {
                x.apply2(key, name, |x, _| if x > 0.0 { beta * x } else { beta * (alpha * libm::expm1(x)) })
            }),
            K::Celu => map(pool, v, |x| {
                x.apply2(key, name, |x, _| if x > 0.0 { x } else { alpha * libm::expm1(x / alpha) })
            }),
            K::ThresholdedRelu => map(pool, v, |x| x.apply2(key, name, |x, _| if x <= alpha { 0.0 } else { x })),
            K::HardSigmoid => map(pool, v, |&x| hard_sigmoid(x, a, b)),
            K::HardSwish => {
                let (a, b) = (constant::<S>(1.0 / 6.0, real), S::from_f64(0.5));
                map(pool, v, |&x| x.mul(hard_sigmoid(x, a, b)))
            }
            K::Sigmoid => map(pool, v, |&x| sigmoid(x)),
            K::Softplus => map(pool, v, |&x| softplus(x)),
            K::Softsign => function!(name, |x| x / (1.0 + x.abs())),
            K::Tanh => function!(name, libm::tanh),
            K::Mish => map(pool, v, |&x| x.mul(softplus(x).apply("Tanh", libm::tanh))),
            K::Swish if self.alpha == Some(1.0) => map(pool, v, |&x| x.mul(sigmoid(x))),
            K::Swish => map(pool, v, |&x| x.mul(sigmoid(a.mul(x)))),
            K::Erf => function!(name, libm::erf),
            K::Exp => function!(name, libm::exp),
            K::Log => function!(name, libm::log),
            K::Sqrt => function!(name, libm::sqrt),
            K::Reciprocal => map(pool, v, |&x| S::ONE.div(x)),
            K::Neg => map(pool, v, |x| x.neg()),
            K::Abs => function!(name, f64::abs),
            K::Sign => function!(name, |x| if x > 0.0 {
                1.0
            } else if x < 0.0 {
                -1.0
            } else {
                x
            }),
            K::Floor => function!(name, libm::floor),
            K::Ceil => function!(name, libm::ceil),
            K::Round => function!(name, libm::rint),
            K::Sin => function!(name, libm::sin),
            K::Cos => function!(name, libm::cos),
            K::Tan => function!(name, libm::tan),
            K::Asin => function!(name, libm::asin),
            K::Acos => function!(name, libm::acos),
            K::Atan => function!(name, libm::atan),
            K::Sinh => function!(name, libm::sinh),
            K::Cosh => function!(name, libm::cosh),
            K::Asinh => function!(name, libm::asinh),
            K::Acosh => function!(name, libm::acosh),
            K::Atanh => function!(name, libm::atanh),
            K::Shrink => map(pool, v, |x| {
                x.apply2(key, name, |x, _| {
                    if x > alpha {
                        x - beta
                    } else if x < -alpha {
                        x + beta
                    } else {
                        0.0
                    }
                })
            }),
        })
    }

    fn map_integers<T: Integer>(&self, v: &[T], pool: &Pool) -> Option<Data> {
        Some(T::wrap(match self.kind {
            UnaryKind::Relu => map(pool, v, |&x| x.max(T::ZERO)),
            UnaryKind::Neg => map(pool, v, |x| x.neg()),
            UnaryKind::Abs => map(pool, v, |x| x.abs()),
            UnaryKind::Sign => map(pool, v, |&x| match x.cmp(&T::ZERO) {
                std::cmp::Ordering::Greater => T::ONE,
                std::cmp::Ordering::Equal => T::ZERO,
                std::cmp::Ordering::Less => T::ONE.neg(),
            }),
            _ => return None,
        }))
    }

    fn dim(&self, x: &Dim) -> Option<Dim> {
        match self.kind {
            UnaryKind::Relu => Some(x.maximum(&Dim::from(0))),
            UnaryKind::Neg => Some(-x),
            UnaryKind::Abs => Some(x.maximum(&-x)),
            UnaryKind::Sign if x.at_least(1) == Some(true) => Some(Dim::from(1)),
            _ => None,
        }
        .filter(|d| !d.is_overflow())
    }
}

impl Operator for Unary {
    const NAMES: &'static [&'static str] = UnaryKind::TEXTS;

    fn name(&self) -> &'static str {
        self.kind.text()
    }

    fn to_attrs(&self) -> Attrs {
        let mut attrs = Attrs::new();
        for (name, value) in [("alpha", self.alpha), ("beta", self.beta)] {
            if let Some(v) = value {
                attrs.insert(name.into(), AttrValue::Float(v));
            }
        }
        attrs
    }

    fn from_attrs(name: &str, attrs: &mut Attrs) -> Result<Self, OpError> {
        let kind = UnaryKind::from_text(name).ok_or_else(|| OpError::Unsupported(format!("operator {name}")))?;
        let mut op = Unary::new(kind);
        for (name, parameter) in [("alpha", &mut op.alpha), ("beta", &mut op.beta)] {
            if parameter.is_some() {
                *parameter = attrs::take::<Option<f32>>(attrs, name)?.or(*parameter);
            }
        }
        Ok(op)
    }

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "X")?;
        expect_dtype(x, 0, "X", "a type that the function is defined on", |d| self.kind.takes(d))?;
        if let Some(folded) = fold(self, inputs) {
            return Ok(folded);
        }
        let y = Fact::new(x.dtype, x.shape.clone());
        if let Some(Known::Dims(dims)) = &x.known
            && let Some(dims) = dims.iter().map(|d| self.dim(d)).collect()
        {
            return Ok(vec![y.with_dims(dims)]);
        }
        Ok(vec![y])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        widened(inputs, |inputs| {
            let x = required(inputs, 0, "X")?;
            cx.count(x.shape())?;
            let wrong = || OpError::InputType {
                index: 0,
                name: "X",
                dtype: x.dtype(),
                expected: "a type that the function is defined on",
            };
            let data = match x.data() {
                Data::F32(v) => self.map::<f32>(v, cx.pool, cx.real),
                Data::F64(v) => self.map::<f64>(v, cx.pool, cx.real),
                Data::Field(v) => self.map::<Field>(v, cx.pool, cx.real),
                other if self.kind.takes(other.dtype()) => {
                    match_integer!(other, v => self.map_integers(v, cx.pool), else None).ok_or_else(wrong)?
                }
                _ => return Err(wrong()),
            };
            Ok(vec![Tensor::from_data(x.shape(), data)?])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{native, run, run_as};

    fn apply(op: &Unary, x: f32) -> f32 {
        run(op, &[&Tensor::scalar(x)]).unwrap()[0].as_slice::<f32>().unwrap()[0]
    }

    #[test]
    fn values() {
        let x = [-3.5f32, -1.0, -0.25, 0.0, 0.25, 0.5, 1.0, 2.5];
        let with = |kind, a: f32, b: f32| Unary { kind, alpha: Some(a), beta: Some(b) };
        type F = fn(f64) -> f64;
        let cases: &[(Unary, F)] = &[
            (Unary::new(UnaryKind::Relu), |x| x.max(0.0)),
            (Unary::new(UnaryKind::LeakyRelu), |x| if x < 0.0 { 0.01 * x } else { x }),
            (with(UnaryKind::Elu, 2.0, 0.0), |x| if x < 0.0 { 2.0 * (x.exp() - 1.0) } else { x }),
            (Unary::new(UnaryKind::Selu), |x| {
                1.050_701 * if x > 0.0 { x } else { 1.673_263_2 * (x.exp() - 1.0) }
            }),
            (with(UnaryKind::Celu, 2.0, 0.0), |x| x.max(0.0) + (2.0 * ((x / 2.0).exp() - 1.0)).min(0.0)),
            (with(UnaryKind::ThresholdedRelu, 0.5, 0.0), |x| if x > 0.5 { x } else { 0.0 }),
            (Unary::new(UnaryKind::HardSigmoid), |x| (0.2 * x + 0.5).clamp(0.0, 1.0)),
            (Unary::new(UnaryKind::HardSwish), |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
            (Unary::new(UnaryKind::Softplus), |x| (1.0 + x.exp()).ln()),
            (Unary::new(UnaryKind::Softsign), |x| x / (1.0 + x.abs())),
            (Unary::new(UnaryKind::Mish), |x| x * (1.0 + x.exp()).ln().tanh()),
            (with(UnaryKind::Swish, 1.5, 0.0), |x| x / (1.0 + (-1.5 * x).exp())),
            (Unary::new(UnaryKind::Round), |x| if x.fract().abs() == 0.5 { 2.0 * (x / 2.0).round() } else { x.round() }),
            (with(UnaryKind::Shrink, 0.3, 0.1), |x| if x.abs() > 0.3 { x - 0.1 * x.signum() } else { 0.0 }),
            (Unary::new(UnaryKind::Sign), |x| if x == 0.0 { 0.0 } else { x.signum() }),
            (Unary::new(UnaryKind::Reciprocal), |x| 1.0 / x),
            (Unary::new(UnaryKind::Atan), f64::atan),
            (Unary::new(UnaryKind::Asinh), f64::asinh),
        ];
        for (op, f) in cases {
            for v in x {
                let (got, want) = (f64::from(apply(op, v)), f(f64::from(v)));
                assert!(got == want || (got - want).abs() < 2e-6, "{op:?}({v}) = {got}, not {want}");
            }
        }
    }

    #[test]
    fn nan_goes_through_piecewise_functions() {
        for &kind in UnaryKind::ALL.iter().filter(|&&k| k != UnaryKind::Shrink) {
            assert!(apply(&Unary::new(kind), f32::NAN).is_nan(), "{kind:?}");
        }
    }

    #[test]
    fn integers_halves_and_the_field() {
        let x = Tensor::vector(vec![i32::MIN, -2, 0, 7]);
        let y = run(&Unary::new(UnaryKind::Abs), &[&x]).unwrap();
        assert_eq!(y[0], Tensor::vector(vec![i32::MIN, 2, 0, 7]));
        assert!(run(&Unary::new(UnaryKind::Exp), &[&x]).is_err());
        assert!(run(&Unary::new(UnaryKind::Neg), &[&Tensor::vector(vec![1u8])]).is_err());
        let h = Tensor::vector(vec![half::f16::from_f32(0.5)]);
        assert_eq!(run(&Unary::new(UnaryKind::Exp), &[&h]).unwrap()[0].dtype(), DType::F16);
        let f = Tensor::vector(vec![1.5f32]).to_real(Real::Field);
        let y = run_as(&Unary::new(UnaryKind::Neg), &[&f], Real::Field).unwrap();
        assert_eq!(y[0], Tensor::vector(vec![-1.5f32]).to_real(Real::Field));
        let elu = |a| {
            run_as(&Unary { kind: UnaryKind::Elu, alpha: Some(a), beta: None }, &[&f], Real::Field).unwrap()
        };
        assert_ne!(elu(1.0), elu(2.0));
    }

    #[test]
    fn threads_change_no_bit() {
        let x = Tensor::vector((0..200_000).map(|i| (i as f32) * 1e-3 - 100.0).collect());
        let op = Unary::new(UnaryKind::Sigmoid);
        let y = |threads| op.run(&[Some(&x)], &native(&Pool::new(threads))).unwrap();
        assert_eq!(y(1), y(3));
    }

    #[test]
    fn shapes_and_known_elements() {
        let n = Dim::symbol("N");
        let x = Fact::new(DType::I64, vec![Dim::from(2)]).with_dims(vec![n.clone(), Dim::from(-3)]);
        let mut fresh = || Dim::from(0);
        let mut cx = InferCx::new(&mut fresh);
        let y = Unary::new(UnaryKind::Neg).infer(&[Some(&x)], &mut cx).unwrap();
        assert_eq!(y[0].dims(), Some(vec![-&n, Dim::from(3)]));
        let y = Unary::new(UnaryKind::Abs).infer(&[Some(&x)], &mut cx).unwrap();
        assert_eq!(y[0].dims(), Some(vec![n, Dim::from(3)]));
        let two = Fact::of(&Tensor::scalar(4f32));
        let y = Unary::new(UnaryKind::Sqrt).infer(&[Some(&two)], &mut cx).unwrap();
        assert_eq!(y[0].f64s(), Some(vec![2.0]));
    }
}
