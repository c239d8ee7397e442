//! Operators that came late to ONNX, written as those that were there before.

use convc_runtime::{
    DType, Op, OpError, Tensor,
    ops::{Binary, Pow, Unary, binary::BinaryKind, compose::Composer, gelu::Approximate, unary::UnaryKind},
};

/// The operator set that introduced `op`, if it is one that [`compose`] defines.
#[must_use]
pub fn introduced(op: &Op) -> Option<i64> {
    match op {
        Op::Unary(u) => match u.kind {
            UnaryKind::HardSwish => Some(14),
            UnaryKind::Mish => Some(18),
            UnaryKind::Swish => Some(24),
            _ => None,
        },
        Op::Gelu(_) => Some(20),
        _ => None,
    }
}

/// Writes operators on values of one type.
struct Writer<'a, C> {
    composer: &'a mut C,
    dtype: DType,
}

impl<C: Composer> Writer<'_, C> {
    fn op(&mut self, op: impl Into<Op>, operands: &[&C::Value]) -> Result<C::Value, C::Error> {
        let operands = operands.iter().map(|&o| Some(o.clone())).collect();
        let first = self.composer.apply(op.into(), operands, 1)?.into_iter().next();
        first.ok_or_else(|| OpError::Unsupported("an operator without a result".into()).into())
    }

    fn unary(&mut self, kind: UnaryKind, x: &C::Value) -> Result<C::Value, C::Error> {
        self.op(Unary::new(kind), &[x])
    }

    fn binary(&mut self, kind: BinaryKind, a: &C::Value, b: &C::Value) -> Result<C::Value, C::Error> {
        self.op(Binary::new(kind), &[a, b])
    }

    fn number(&mut self, v: f64) -> Result<C::Value, C::Error> {
        self.composer.constant(Tensor::scalar(v).rounded_to(self.dtype))
    }
}

/// The definition of an operator for which [`introduced`] knows an operator set, in operators that are older; `None` for others.
pub fn compose<C: Composer>(
    op: &Op,
    composer: &mut C,
    operands: &[Option<C::Value>],
) -> Option<Result<C::Value, C::Error>> {
    introduced(op)?;
    let x = operands.first().cloned().flatten();
    let dtype = x.as_ref().and_then(|x| composer.fact(x)).map(|f| f.dtype);
    let (Some(x), Some(dtype)) = (x, dtype) else {
        return Some(Err(OpError::Unsupported(format!("{} on a value of unknown type", op.name())).into()));
    };
    let mut w = Writer { composer, dtype };
    Some(match op {
        Op::Unary(u) if u.kind == UnaryKind::HardSwish => hard_swish(&mut w, &x),
        Op::Unary(u) if u.kind == UnaryKind::Mish => mish(&mut w, &x),
        Op::Unary(u) => swish(&mut w, &x, u.alpha.unwrap_or(1.0)),
        Op::Gelu(g) => match g.approximate {
            Approximate::None => gelu(&mut w, &x),
            Approximate::Tanh => gelu_by_tanh(&mut w, &x),
        },
        _ => return None,
    })
}

/// `x * HardSigmoid(x; 1/6, 1/2)`
fn hard_swish<C: Composer>(w: &mut Writer<'_, C>, x: &C::Value) -> Result<C::Value, C::Error> {
    let line = Unary { alpha: Some(1.0 / 6.0), beta: Some(0.5), ..Unary::new(UnaryKind::HardSigmoid) };
    let gate = w.op(line, &[x])?;
    w.binary(BinaryKind::Mul, x, &gate)
}

/// `x * Tanh(Softplus(x))`
fn mish<C: Composer>(w: &mut Writer<'_, C>, x: &C::Value) -> Result<C::Value, C::Error> {
    let soft = w.unary(UnaryKind::Softplus, x)?;
    let gate = w.unary(UnaryKind::Tanh, &soft)?;
    w.binary(BinaryKind::Mul, x, &gate)
}

/// `x * Sigmoid(alpha * x)`
fn swish<C: Composer>(w: &mut Writer<'_, C>, x: &C::Value, alpha: f32) -> Result<C::Value, C::Error> {
    let inner = if alpha == 1.0 {
        x.clone()
    } else {
        let a = w.number(alpha.into())?;
        w.binary(BinaryKind::Mul, &a, x)?
    };
    let gate = w.unary(UnaryKind::Sigmoid, &inner)?;
    w.binary(BinaryKind::Mul, x, &gate)
}

/// `x * (Erf(x / sqrt(2)) + 1) * 0.5`
fn gelu<C: Composer>(w: &mut Writer<'_, C>, x: &C::Value) -> Result<C::Value, C::Error> {
    let (root, one, half) = (w.number(std::f64::consts::SQRT_2)?, w.number(1.0)?, w.number(0.5)?);
    let inner = w.binary(BinaryKind::Div, x, &root)?;
    let erf = w.unary(UnaryKind::Erf, &inner)?;
    let gate = w.binary(BinaryKind::Add, &erf, &one)?;
    let twice = w.binary(BinaryKind::Mul, x, &gate)?;
    w.binary(BinaryKind::Mul, &twice, &half)
}

/// `0.5 * x * (1 + Tanh(sqrt(2/pi) * (x + 0.044715 * x^3)))`
fn gelu_by_tanh<C: Composer>(w: &mut Writer<'_, C>, x: &C::Value) -> Result<C::Value, C::Error> {
    let (three, cubic, one, half) = (w.number(3.0)?, w.number(0.044_715)?, w.number(1.0)?, w.number(0.5)?);
    let scale = w.number((2.0 / std::f64::consts::PI).sqrt())?;
    let cube = w.op(Pow {}, &[x, &three])?;
    let term = w.binary(BinaryKind::Mul, &cubic, &cube)?;
    let sum = w.binary(BinaryKind::Add, x, &term)?;
    let inner = w.binary(BinaryKind::Mul, &scale, &sum)?;
    let tanh = w.unary(UnaryKind::Tanh, &inner)?;
    let gate = w.binary(BinaryKind::Add, &one, &tanh)?;
    let halved = w.binary(BinaryKind::Mul, &half, x)?;
    w.binary(BinaryKind::Mul, &halved, &gate)
}
