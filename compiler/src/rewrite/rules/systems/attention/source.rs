//! The convolution whose channels are weighed.

use convc_runtime::{
    Op,
    ops::{Conv, Gather, ghost_module::Activation},
    window::AutoPad,
};

use crate::rewrite::{
    rule::Verdict,
    rules::weights::ints,
    view::{Class, Expr, View, fixed_dim},
};

/// The convolution whose channels are weighed.
pub(super) struct Source<'a> {
    pub(super) op: &'a Conv,
    pub(super) operands: [Option<Class>; 3],
    pub(super) activation: Activation,
    pub(super) channels: usize,
}

impl<'a> Source<'a> {
    pub(super) fn read(view: &'a dyn View, map: Class) -> Option<Source<'a>> {
        let mut app = view.apps(map).into_iter().next()?;
        let mut activation = Activation::Identity;
        if app.op.name() == "Relu" {
            activation = Activation::Relu;
            app = view.apps(app.operand(0)?).into_iter().next()?;
        }
        let Op::Conv(op) = app.op else { return None };
        let channels = usize::try_from(fixed_dim(view, map, 1)?).ok()?;
        let operands = [Some(app.operand(0)?), Some(app.operand(1)?), app.operand(2)];
        (op.auto_pad == AutoPad::NotSet).then_some(Source { op, operands, activation, channels })
    }

    /// Input, kernel and bias of the convolution whose channel i is this one's `order[i]`. Groups stay together; where they
    /// change places, so do the inputs that they read.
    pub(super) fn in_order(&self, view: &dyn View, order: &[usize]) -> (Verdict, Vec<Option<Expr>>) {
        let as_it_is = || self.operands.iter().map(|o| o.map(Expr::Class)).collect();
        if order.iter().enumerate().all(|(i, &from)| i == from) {
            return (Verdict::Holds, as_it_is());
        }
        let count = |c: usize| order.iter().filter(|&&o| o == c).count();
        if let Some((c, n)) = (0..order.len()).map(|c| (c, count(c))).find(|(_, n)| *n != 1) {
            return (Verdict::Fails(format!("channel {c} is weighed {n} times")), as_it_is());
        }
        let groups = usize::try_from(self.op.group).unwrap_or(1).max(1);
        let each = self.channels / groups;
        let places: Vec<usize> = order.chunks(each.max(1)).map(|rows| rows[0] / each.max(1)).collect();
        if let Some(rows) = order.chunks(each.max(1)).find(|rows| rows.iter().any(|r| r / each != rows[0] / each)) {
            let why = format!("channels {rows:?} of {groups} groups of {each} would have to be one group");
            return (Verdict::Fails(why), as_it_is());
        }
        let rows: Vec<i64> = order.iter().map(|&c| c as i64).collect();
        let pick = |e: Class, axis: i64, at: &[i64]| {
            Expr::op(Gather { axis }, vec![Some(e.into()), Some(Expr::Constant(ints(at)))])
        };
        let inputs = self.operands[1].and_then(|w| fixed_dim(view, w, 1)).unwrap_or(1);
        let read: Vec<i64> = places.iter().flat_map(|&g| (0..inputs).map(move |i| g as i64 * inputs + i)).collect();
        let moved = places.iter().enumerate().any(|(i, &g)| i != g);
        let x = self.operands[0].map(|x| if moved { pick(x, 1, &read) } else { x.into() });
        let [w, b] = [1, 2].map(|i| self.operands[i].map(|o| pick(o, 0, &rows)));
        (Verdict::Holds, vec![x, w, b])
    }
}
