//! Depthwise over-parameterised convolutions.

use convc_runtime::{Constant, Fact, Op, OpError, Tensor, ops::compose::Composer};

use super::fact_of;
use crate::rewrite::{
    rule::{Exactness, Phase, Rule},
    types::Types,
    view::{Expr, View},
};

/// Sound bit for bit: it is the operator's definition, whose kernel does not depend on x.
/// Requires: constant factors, whose product is then made once.
/// Exactness: bitwise.
/// Pays: nothing is left of the factors at run time, and the convolution folds on: BatchNormalization, branches, chains.
pub const DO_CONV_CONSTANT: Rule = Rule {
    name: "do-conv-constant",
    equation: "DOConv(x, d, w, b?) => Conv(x, collapsed(d, w), b?)",
    conditions: &[],
    exactness: Exactness::Bitwise,
    types: Types::FLOATS,
    pays: "one convolution, whose kernel is made once and folds on",
    phase: Phase::Normalise,
    folds: false,
    proposals: None,
    roots: &["DOConv"],
    search: |cx, _, app| {
        let view = cx.view;
        let Op::DOConv(op) = app.op else { return };
        if [1, 2].iter().any(|&i| app.operand(i).is_none_or(|f| !view.is_constant(f))) {
            return;
        }
        let operands: Vec<Option<Expr>> = app.operands.iter().map(|o| o.map(Expr::Class)).collect();
        if let Ok(conv) = op.compose(&mut Written(view), &operands) {
            cx.rewrite(Expr::of(app), conv);
        }
    },
};

/// Writes a definition as a term over the classes of a view.
struct Written<'a>(&'a dyn View);

impl Composer for Written<'_> {
    type Value = Expr;
    type Error = OpError;

    fn apply(&mut self, op: Op, operands: Vec<Option<Expr>>, outputs: usize) -> Result<Vec<Expr>, OpError> {
        if outputs != 1 {
            return Err(OpError::Unsupported("a term of several outputs".into()));
        }
        Ok(vec![Expr::op(op, operands)])
    }

    fn constant(&mut self, tensor: Tensor) -> Result<Expr, OpError> {
        Ok(Expr::Constant(Constant::from_tensor(&tensor)?))
    }

    fn fact(&self, value: &Expr) -> Option<Fact> {
        fact_of(self.0, value)
    }
}

/// The rules of this file.
pub const RULES: &[&Rule] = &[&DO_CONV_CONSTANT];
