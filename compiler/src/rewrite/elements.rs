//! [`Elements`]: what is known of the elements of a value from how it is computed, whatever the inputs hold.
//!
//! `--fp real` takes the inputs of a model for finite numbers. What follows from finite numbers by operators that keep them finite,
//! short of overflow, is finite; behind an operator that makes an infinity or NaN of a finite number (Log, Exp, a division by
//! what may be 0) nothing is known. Elements of an input that the model never reads may still be anything: rules that would
//! read them ask for more.

use std::collections::BTreeSet;

use convc_runtime::{
    Constant, Op,
    ops::{
        binary::BinaryKind, global_pool::GlobalPoolKind, pad::PadMode, reduce::ReduceKind, unary::UnaryKind,
        variadic::VariadicKind,
    },
};

use crate::{
    ir::{Graph, Value},
    ops::{properties, properties::Movement},
};

/// Whether the elements of a value are finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Finite {
    /// It is not known.
    #[default]
    Unknown,
    /// They are those of an input, each by itself, so that an element which the model never reads may be anything.
    Given,
    /// They are finite if all elements are that the model reads.
    Computed,
}

/// In what half of the numbers the elements of a value lie, NaN aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Sign {
    /// Anywhere.
    #[default]
    Any,
    /// None is below 0.
    NotNegative,
    /// All are above a number above 0.
    Positive,
}

/// What is known of the elements of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Elements {
    /// Whether they are finite.
    pub finite: Finite,
    /// Their sign.
    pub sign: Sign,
}

/// An operand: what is known of it, and the constant that it is.
pub(crate) struct Known<'a> {
    pub(crate) elements: Elements,
    /// The constant that the operand is.
    pub(crate) constant: Option<&'a Constant>,
    /// Whether it holds no floating-point numbers.
    pub(crate) whole: bool,
}

/// Constants of at most so many elements are looked at one by one.
const FEW: usize = 4096;

impl Elements {
    /// Of an input of the model.
    pub(crate) const GIVEN: Elements = Elements { finite: Finite::Given, sign: Sign::Any };
    /// Of an input of which the model reads every element; see [`is_read_whole`].
    pub(crate) const READ: Elements = Elements { finite: Finite::Computed, sign: Sign::Any };

    /// Of a constant whose largest absolute value is this.
    pub(crate) fn of_constant(constant: Option<&Constant>, largest: Option<f64>) -> Elements {
        let finite = if largest.is_some_and(f64::is_finite) { Finite::Computed } else { Finite::Unknown };
        let few = constant.filter(|c| c.len() <= FEW).and_then(|c| c.to_tensor().ok()?.to_f64s());
        let sign = match few {
            Some(v) if v.iter().all(|x| *x > 0.0) => Sign::Positive,
            Some(v) if v.iter().all(|x| *x >= 0.0) => Sign::NotNegative,
            _ => Sign::Any,
        };
        Elements { finite, sign }
    }

    /// What two ways to compute the same value say of it together.
    #[must_use]
    pub fn both(self, other: Elements) -> Elements {
        Elements { finite: self.finite.max(other.finite), sign: self.sign.max(other.sign) }
    }

    /// Of what an operator makes of its operands. `same` says that the first two operands are one value.
    pub(crate) fn of_op(op: &Op, operands: &[Option<Known<'_>>], same: bool) -> Elements {
        Elements { finite: finite(op, operands), sign: sign(op, operands, same) }
    }
}

/// Whether the model reads every element of a value somewhere where it counts: by a convolution of one group that leaves none out,
/// behind operators on each element by itself, or part by part behind a Split.
pub(crate) fn is_read_whole(graph: &Graph, v: Value) -> bool {
    let mut stack = vec![(v, 0)];
    let mut split: Vec<Vec<Value>> = Vec::new();
    let mut seen = BTreeSet::new();
    while let Some((v, depth)) = stack.pop() {
        if depth > 8 || !seen.insert(v) {
            continue;
        }
        for (user, place) in graph.uses(v) {
            let node = graph.node(user);
            match node.op() {
                Some(Op::Conv(c)) if place == 0 => {
                    let steps = c.strides.iter().all(|s| *s == 1);
                    if steps && c.group == 1 && c.pads.iter().all(|p| *p >= 0) {
                        return true;
                    }
                }
                Some(Op::Unary(_) | Op::Clip(_)) if place == 0 => {
                    stack.push((Value { node: user, port: 0 }, depth + 1))
                }
                Some(Op::Split(_)) if place == 0 => {
                    let parts = (0..node.outputs()).filter_map(|p| u32::try_from(p).ok());
                    split.push(parts.map(|port| Value { node: user, port }).collect());
                }
                _ => {}
            }
        }
    }
    split.iter().any(|parts| parts.iter().all(|p| is_read_whole(graph, *p)))
}

fn finite_of(k: &Known<'_>) -> Finite {
    if k.whole { Finite::Computed } else { k.elements.finite }
}

/// The least that is known of these operands.
fn all<'a>(operands: impl IntoIterator<Item = &'a Option<Known<'a>>>) -> Finite {
    operands.into_iter().flatten().map(finite_of).min().unwrap_or(Finite::Unknown)
}

/// A convolution of one group reads all channels for each of its results.
fn convolved(group: i64, f: Finite) -> Finite {
    if f != Finite::Unknown && group == 1 { Finite::Computed } else { f }
}

/// The one number that a constant operand holds.
fn number(k: Option<&Known<'_>>) -> Option<f64> {
    let tensor = k?.constant?.to_tensor().ok()?;
    let values = tensor.to_f64s().or_else(|| Some(tensor.to_i64s()?.into_iter().map(|v| v as f64).collect()))?;
    let first = *values.first()?;
    values.iter().all(|v| *v == first).then_some(first)
}

fn finite(op: &Op, operands: &[Option<Known<'_>>]) -> Finite {
    let at = |i: usize| operands.get(i).and_then(Option::as_ref);
    let first = || at(0).map_or(Finite::Unknown, finite_of);
    let sign_of = |i: usize| at(i).map_or(Sign::Any, |k| k.elements.sign);
    let only_if = |holds: bool, f: Finite| if holds { f } else { Finite::Unknown };
    match op {
        Op::Unary(u) => match u.kind {
            UnaryKind::Sqrt => only_if(sign_of(0) >= Sign::NotNegative, first()),
            UnaryKind::Reciprocal | UnaryKind::Log => only_if(sign_of(0) == Sign::Positive, first()),
            UnaryKind::Relu
            | UnaryKind::LeakyRelu
            | UnaryKind::Elu
            | UnaryKind::Selu
            | UnaryKind::Celu
            | UnaryKind::ThresholdedRelu
            | UnaryKind::HardSigmoid
            | UnaryKind::HardSwish
            | UnaryKind::Sigmoid
            | UnaryKind::Softplus
            | UnaryKind::Softsign
            | UnaryKind::Tanh
            | UnaryKind::Mish
            | UnaryKind::Swish
            | UnaryKind::Erf
            | UnaryKind::Neg
            | UnaryKind::Abs
            | UnaryKind::Sign
            | UnaryKind::Floor
            | UnaryKind::Ceil
            | UnaryKind::Round
            | UnaryKind::Sin
            | UnaryKind::Cos => first(),
            _ => Finite::Unknown,
        },
        Op::Binary(b) => match b.kind {
            BinaryKind::Add | BinaryKind::Sub | BinaryKind::Mul | BinaryKind::PRelu => all(operands),
            BinaryKind::Div => {
                let few = at(1).and_then(|k| k.constant).filter(|c| c.len() <= FEW);
                let apart =
                    few.and_then(|c| c.to_tensor().ok()?.to_f64s()).is_some_and(|v| v.iter().all(|x| *x != 0.0));
                only_if(apart || sign_of(1) == Sign::Positive, all(operands))
            }
        },
        Op::Pow(_) => {
            let power = number(at(1)).is_some_and(|e| e >= 0.0 && e.fract() == 0.0);
            only_if(power || sign_of(0) == Sign::Positive, first().min(at(1).map_or(Finite::Unknown, finite_of)))
        }
        Op::Clip(_) => {
            // A bound of an infinity on its own side is none.
            let bound = |i: usize, none: f64| {
                at(i).is_none_or(|k| finite_of(k) != Finite::Unknown || number(Some(k)) == Some(none))
            };
            only_if(bound(1, f64::NEG_INFINITY) && bound(2, f64::INFINITY), first())
        }
        Op::Variadic(_) | Op::Concat(_) => all(operands),
        Op::Where(_) => all(operands.get(1..).unwrap_or_default()),
        Op::Pad(p) => match (p.mode, at(2)) {
            (PadMode::Constant, Some(v)) => first().min(finite_of(v)),
            _ => first(),
        },
        Op::Gelu(_) | Op::Cast(_) | Op::AveragePool(_) | Op::MaxPool(_) | Op::Softmax(_) => first(),
        Op::ScatterND(_) | Op::ScatterElements(_) => first().min(at(2).map_or(Finite::Unknown, finite_of)),
        Op::GlobalPool(g) => match g.kind {
            GlobalPoolKind::Average | GlobalPoolKind::Max => first(),
            _ => Finite::Unknown,
        },
        Op::Resize(r) => only_if(r.extrapolation_value.is_finite(), first()),
        Op::Reduce(r) => match r.kind {
            ReduceKind::ReduceSum
            | ReduceKind::ReduceL1
            | ReduceKind::ReduceL2
            | ReduceKind::ReduceSumSquare
            | ReduceKind::ReduceProd
            | ReduceKind::ReduceMean
            | ReduceKind::ReduceMax
            | ReduceKind::ReduceMin => first(),
            _ => Finite::Unknown,
        },
        Op::BatchNormalization(b) => {
            only_if(sign_of(4) >= Sign::NotNegative && (b.epsilon > 0.0 || sign_of(4) == Sign::Positive), all(operands))
        }
        Op::InstanceNormalization(n) => only_if(n.epsilon > 0.0, all(operands)),
        Op::GroupNormalization(n) => only_if(n.epsilon > 0.0, all(operands)),
        Op::LayerNormalization(n) => only_if(n.epsilon > 0.0, all(operands)),
        Op::RMSNormalization(n) => only_if(n.epsilon > 0.0, all(operands)),
        Op::Conv(c) => convolved(c.group, all(operands)),
        Op::ConvTranspose(c) => convolved(c.group, all(operands)),
        Op::DOConv(c) => convolved(c.group, all(operands)),
        Op::MixedConv(c) => convolved(c.group, all(operands)),
        Op::MatMul(_) | Op::Gemm(_) | Op::Einsum(_) => all(operands),
        Op::GhostModule(_) | Op::SCConv(_) | Op::SplitAttention(_) | Op::Involution(_) => all(operands),
        // Of an operator that is not spoken of here nothing is claimed, unless it computes nothing.
        op => only_if(takes_from_first(op), first()),
    }
}

/// Whether every element of the result is one of operand 0's.
pub(super) fn takes_from_first(op: &Op) -> bool {
    match properties(op).movement {
        Movement::View | Movement::Permutes | Movement::Picks => true,
        Movement::Computes | Movement::Pads | Movement::Joins => false,
    }
}

fn sign(op: &Op, operands: &[Option<Known<'_>>], same: bool) -> Sign {
    let at = |i: usize| operands.get(i).and_then(Option::as_ref).map_or(Sign::Any, |k| k.elements.sign);
    let each = || (0..operands.len()).map(at);
    let (least, most) = (each().min().unwrap_or_default(), each().max().unwrap_or_default());
    let not_negative = |holds: bool| if holds { Sign::NotNegative } else { Sign::Any };
    match op {
        Op::Unary(u) => match u.kind {
            UnaryKind::Relu | UnaryKind::Sigmoid | UnaryKind::HardSigmoid | UnaryKind::Softplus | UnaryKind::Exp => {
                Sign::NotNegative
            }
            UnaryKind::Abs => at(0).max(Sign::NotNegative),
            // The root of a number above 0 is one.
            UnaryKind::Sqrt => at(0).max(Sign::NotNegative),
            _ => Sign::Any,
        },
        Op::Binary(b) => match b.kind {
            BinaryKind::Add if least >= Sign::NotNegative => most,
            BinaryKind::Mul if same => Sign::NotNegative,
            // Products of numbers above 0 may vanish.
            BinaryKind::Mul | BinaryKind::Div => least.min(Sign::NotNegative),
            _ => Sign::Any,
        },
        Op::Pow(_) => {
            let even = number(operands.get(1).and_then(Option::as_ref)).is_some_and(|e| e % 2.0 == 0.0 && e >= 0.0);
            not_negative(even || at(0) >= Sign::NotNegative)
        }
        Op::Clip(_) => {
            // Of crossed bounds the upper one counts.
            let upper = operands.get(2).is_none_or(Option::is_none);
            match (upper || at(2) == Sign::Positive, at(1)) {
                (true, lower) => lower.max(at(0).min(Sign::NotNegative)),
                (false, _) => least.min(Sign::NotNegative),
            }
        }
        Op::Variadic(v) => match v.kind {
            VariadicKind::Max => most,
            VariadicKind::Min => least,
            VariadicKind::Sum if least >= Sign::NotNegative => most,
            VariadicKind::Sum | VariadicKind::Mean => least.min(Sign::NotNegative),
        },
        Op::Softmax(_) if op.name() == "Softmax" => Sign::NotNegative,
        Op::Concat(_) => least,
        Op::AveragePool(_) | Op::GlobalPool(_) => at(0).min(Sign::NotNegative),
        Op::Reduce(r) => match r.kind {
            ReduceKind::ReduceL1 | ReduceKind::ReduceL2 | ReduceKind::ReduceSumSquare => Sign::NotNegative,
            ReduceKind::ReduceSum | ReduceKind::ReduceMean | ReduceKind::ReduceMax | ReduceKind::ReduceMin => {
                at(0).min(Sign::NotNegative)
            }
            _ => Sign::Any,
        },
        // Of an operator that is not spoken of here nothing is claimed, unless it computes nothing.
        op if takes_from_first(op) => at(0),
        _ => Sign::Any,
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        ir::text::parse,
        rewrite::{engine::Engine, view::View},
    };

    use super::{Elements, Finite, Sign};

    /// What is known of the result of a body of lines that end in `%9`.
    fn of(body: &str) -> Elements {
        let text = format!("graph(x: f32[N, 4, 8, 8]) {{\n{body}\n  return %9 as y\n}}\n");
        let graph = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let engine = Engine::new(graph);
        let v = engine.graph.outputs()[0].value;
        engine.terms.elements(engine.term(v).class())
    }

    #[test]
    fn finite_follows_from_what_makes_a_value() {
        let cases = [
            ("  %9 = Relu(x)", Finite::Given),
            ("  %9 = Exp(x)", Finite::Unknown),
            ("  %9 = Log(x)", Finite::Unknown),
            ("  c: f32[] = [2.0]\n  %9 = Div(x, c)", Finite::Given),
            ("  c: f32[] = [0.0]\n  %9 = Div(x, c)", Finite::Unknown),
            ("  %9 = Div(x, x)", Finite::Unknown),
            ("  c: f32[] = [inf]\n  %9 = Mul(x, c)", Finite::Unknown),
            (
                "  e: f32[] = [1e-6]\n  %1 = Mul(x, x)\n  %2 = Add(%1, e)\n  %3 = Sqrt(%2)\n  %9 = Div(x, %3)",
                Finite::Given,
            ),
            (
                "  e: f32[] = [1e-6]\n  %1 = Mul(x, x)\n  %2 = Sub(%1, e)\n  %3 = Sqrt(%2)\n  %9 = Div(x, %3)",
                Finite::Unknown,
            ),
            ("  e: f32[] = [1e-12]\n  %1 = Abs(x)\n  %2 = Clip(%1, e, _)\n  %9 = Div(x, %2)", Finite::Given),
            ("  e: f32[] = [2.0]\n  %9 = Pow(x, e)", Finite::Given),
            ("  e: f32[] = [0.5]\n  %9 = Pow(x, e)", Finite::Unknown),
            (
                "  w: f32[4, 4, 1, 1] = random(1)\n  %9 = Conv(x, w) {auto_pad=\"NOTSET\", dilations=[1, 1], group=1, pads=[0, 0, 0, 0], strides=[1, 1]}",
                Finite::Computed,
            ),
        ];
        for (body, expected) in cases {
            assert_eq!(of(body).finite, expected, "{body}");
        }
    }

    #[test]
    fn signs_follow_from_what_makes_a_value() {
        let cases = [
            ("  %9 = Relu(x)", Sign::NotNegative),
            ("  %9 = Mul(x, x)", Sign::NotNegative),
            ("  e: f32[] = [1.0]\n  %1 = Abs(x)\n  %9 = Add(%1, e)", Sign::Positive),
            ("  e: f32[] = [1.0]\n  %9 = Add(x, e)", Sign::Any),
            ("  e: f32[] = [1.0]\n  %1 = Abs(x)\n  %9 = Sub(%1, e)", Sign::Any),
            ("  e: f32[] = [1.0]\n  %9 = Clip(x, e, _)", Sign::Positive),
            ("  e: f32[] = [1.0]\n  m: f32[] = [-1.0]\n  %9 = Clip(x, e, m)", Sign::Any),
        ];
        for (body, expected) in cases {
            assert_eq!(of(body).sign, expected, "{body}");
        }
    }
}
