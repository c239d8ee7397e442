//! Functions of one argument, applied to each element: <https://onnx.ai/onnx/operators/>.

use crate::{
    Element, Fact, OpError, Tensor, attribute_enum,
    attrs::{self, Attrs},
    match_real,
    ops::{InferCx, Operator, RunCx, helpers::required},
    scalar::Scalar,
};

attribute_enum! {
    /// Which function.
    pub enum UnaryKind {
        /// `max(x, 0)`
        Relu = "Relu",
        /// `1 / (1 + exp(-x))`
        Sigmoid = "Sigmoid",
    }
}

/// `y = f(x)`, elementwise, same type and shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Unary {
    /// The function.
    pub kind: UnaryKind,
    /// First parameter (`alpha` of those that have one).
    pub alpha: Option<f32>,
    /// Second parameter (`beta`, `gamma` or `bias` of those that have one).
    pub beta: Option<f32>,
}

impl Unary {
    /// The function without parameters.
    #[must_use]
    pub fn new(kind: UnaryKind) -> Unary {
        Unary { kind, alpha: None, beta: None }
    }

    fn eval<S: Scalar>(&self, x: S) -> S {
        match self.kind {
            UnaryKind::Relu => x.max(S::ZERO),
            UnaryKind::Sigmoid => x.apply("Sigmoid", |x| 1.0 / (1.0 + libm::exp(-x))),
        }
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
                attrs.insert(name.into(), attrs::AttrValue::Float(v));
            }
        }
        attrs
    }

    fn from_attrs(name: &str, attrs: &mut Attrs) -> Result<Self, OpError> {
        let kind = UnaryKind::from_text(name).ok_or_else(|| OpError::Unsupported(format!("operator {name}")))?;
        Ok(Unary { kind, alpha: attrs::take(attrs, "alpha")?, beta: attrs::take(attrs, "beta")? })
    }

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "X")?;
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn run(&self, inputs: &[Option<&Tensor>], _: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        fn map<S: Scalar + Element>(op: &Unary, v: &[S]) -> crate::Data {
            S::wrap(v.iter().map(|&x| op.eval(x)).collect())
        }
        let x = required(inputs, 0, "X")?;
        let data = match_real!(x.data(), v => map(self, v), else {
            return Err(OpError::InputType { index: 0, name: "X", dtype: x.dtype(), expected: "a floating-point type" });
        });
        Ok(vec![Tensor::from_data(x.shape(), data)?])
    }
}
