//! The convolution systems of domain `ai.convc`: their operators found in what models spell out, and what becomes of them.

pub mod do_conv;

use convc_runtime::{Fact, ops::InferCx};

use crate::rewrite::view::{Expr, View};

/// What is known of a term.
fn fact_of(view: &dyn View, e: &Expr) -> Option<Fact> {
    match e {
        Expr::Class(c) => view.fact(*c).cloned(),
        Expr::Constant(c) => Some(match c.to_tensor() {
            Ok(t) => Fact::of(&t),
            Err(_) => Fact::fixed(c.dtype(), c.shape()),
        }),
        Expr::Op(op, operands) => {
            let facts: Option<Vec<Option<Fact>>> =
                operands.iter().map(|o| o.as_ref().map_or(Some(None), |o| fact_of(view, o).map(Some))).collect();
            let facts = facts?;
            let facts: Vec<Option<&Fact>> = facts.iter().map(Option::as_ref).collect();
            let mut unknown = false;
            let mut fresh = || {
                unknown = true;
                convc_runtime::Dim::symbol("?")
            };
            let fact = op.infer(&facts, &mut InferCx::new(&mut fresh)).ok()?.into_iter().next()?;
            (!unknown).then_some(fact)
        }
    }
}
