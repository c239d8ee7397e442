//! The formulas of functions of one argument.

use convc_runtime::{
    Op,
    ops::{Unary, gelu::Approximate, unary::UnaryKind},
    scalar::Scalar,
};

use super::{
    Array, indices,
    ops::{Operands, broadcast, need, pick},
};

fn softplus(v: f64) -> f64 {
    v.exp().ln_1p()
}

fn sigmoid(v: f64) -> f64 {
    1.0 / (1.0 + (-v).exp())
}

fn number(op: &Unary, v: f64) -> Result<f64, String> {
    let of = |p: Option<f32>| p.map(f64::from).unwrap_or_default();
    let (a, b) = (of(op.alpha), of(op.beta));
    Ok(match op.kind {
        UnaryKind::Sigmoid => sigmoid(v),
        UnaryKind::Exp => v.exp(),
        UnaryKind::Log => v.ln(),
        UnaryKind::Abs => v.abs(),
        UnaryKind::Neg => -v,
        UnaryKind::Tanh => v.tanh(),
        UnaryKind::Erf => libm::erf(v),
        UnaryKind::Softplus => softplus(v),
        UnaryKind::Mish => v * softplus(v).tanh(),
        UnaryKind::Swish => v * sigmoid(a * v),
        UnaryKind::HardSigmoid => (a * v + b).clamp(0.0, 1.0),
        UnaryKind::HardSwish => v * (v / 6.0 + 0.5).clamp(0.0, 1.0),
        _ => return Err(format!("the oracle has no {}", op.kind.text())),
    })
}

/// One operator of this file.
pub(super) fn apply<S: Scalar>(op: &Op, operands: &Operands<'_, S>) -> Result<Array<S>, String> {
    let x = need(operands, 0)?;
    let each = |name: &str, f: &dyn Fn(f64) -> f64| {
        Ok(Array::real(x.shape.clone(), x.reals().iter().map(|v| v.apply(name, f)).collect()))
    };
    match op {
        Op::Unary(unary) => {
            number(unary, 0.5)?;
            each(op.name(), &|v| number(unary, v).unwrap_or(f64::NAN))
        }
        Op::Gelu(gelu) => match gelu.approximate {
            Approximate::None => each("Gelu", &|v| 0.5 * v * (1.0 + libm::erf(v / 2f64.sqrt()))),
            Approximate::Tanh => {
                let scale = (2.0 / std::f64::consts::PI).sqrt();
                each("Gelu", &|v| 0.5 * v * (1.0 + (scale * (v + 0.044_715 * v.powi(3))).tanh()))
            }
        },
        Op::Pow(_) => {
            let e = need(operands, 1)?;
            if x.reals().iter().chain(e.reals()).any(|v| v.to_f64().is_none()) {
                return Err("no powers in the field".into());
            }
            let shape = broadcast(&x.shape, &e.shape)?;
            let at = |i: &Vec<i64>| x.at(&pick(&x.shape, i)).apply2(e.at(&pick(&e.shape, i)), "Pow", f64::powf);
            let data = indices(&shape).iter().map(at).collect();
            Ok(Array::real(shape, data))
        }
        other => super::reduce::apply(other, operands),
    }
}
