//! What follows from the operators that made a value.

use convc_runtime::{
    Op,
    ops::{
        pad::PadMode,
        resize::{CoordinateMode, ResizeMode},
        variadic::VariadicKind,
    },
};

use crate::rewrite::{
    elements::Finite,
    rule::{Condition, Verdict},
    view::{Class, View},
};

/// What a rule needs that reads an element with a weight of 0 which the model did not read there: 0 times infinity is no number.
pub(super) const FINITE_ELEMENTS: Condition = Condition {
    name: "finite-elements",
    text: "elements that are read with weights of 0 in addition are finite: they follow from the model's inputs by operators that \
           keep finite numbers finite, and those that the model may never read are no elements of an input",
};

/// Whether the elements of a value are finite that the model reads elsewhere.
pub(super) fn finite_elements(view: &dyn View, class: Class) -> Verdict {
    match view.elements(class).finite {
        Finite::Given | Finite::Computed => Verdict::Holds,
        Finite::Unknown => Verdict::Unknown("the map may hold an infinity or NaN".into()),
    }
}

/// Whether the elements of a value are finite that the model may read nowhere.
pub(super) fn unread_elements(view: &dyn View, class: Class) -> Verdict {
    match view.elements(class).finite {
        Finite::Computed => Verdict::Holds,
        Finite::Given => Verdict::Unknown("elements of an input that the model does not read may be anything".into()),
        Finite::Unknown => Verdict::Unknown("the map may hold an infinity or NaN".into()),
    }
}

/// Whether no element of a class is negative: `None` where that is not known. Looks through operators that keep signs.
#[must_use]
pub(super) fn is_nonnegative(view: &dyn View, class: Class) -> Option<bool> {
    fn go(view: &dyn View, class: Class, depth: usize) -> Option<bool> {
        if let Some(c) = view.constant(class) {
            return Some(c.to_tensor().ok()?.to_f64s()?.iter().all(|&v| v >= 0.0));
        }
        if depth == 0 {
            return None;
        }
        let proven = view.apps(class).iter().any(|app| {
            let of = |i: usize| app.operand(i).and_then(|c| go(view, c, depth - 1)) == Some(true);
            let all = || (0..app.operands.len()).all(of);
            match app.op {
                Op::Unary(_) => matches!(app.op.name(), "Relu" | "Sigmoid" | "Abs" | "Exp" | "HardSigmoid" | "Sqrt"),
                Op::Softmax(_) => app.op.name() == "Softmax",
                Op::Clip(_) => app.operand(1).is_some() && of(1) && (app.operand(2).is_none() || of(2)),
                Op::Variadic(v) if v.kind == VariadicKind::Max => (0..app.operands.len()).any(of),
                Op::Variadic(_) | Op::Concat(_) => all(),
                Op::Binary(_) => matches!(app.op.name(), "Add" | "Mul") && all(),
                Op::Pad(p) if p.mode == PadMode::Constant => of(0) && (app.operand(2).is_none() || of(2)),
                Op::Resize(r) => {
                    let averages = matches!(r.mode, ResizeMode::Nearest | ResizeMode::Linear);
                    let crops = r.coordinate_transformation_mode == CoordinateMode::TfCropAndResize;
                    averages && !r.antialias && !crops && of(0)
                }
                Op::Pad(_)
                | Op::AveragePool(_)
                | Op::Slice(_)
                | Op::Reshape(_)
                | Op::Transpose(_)
                | Op::Squeeze(_)
                | Op::Unsqueeze(_)
                | Op::Flatten(_)
                | Op::Identity(_) => of(0),
                _ => false,
            }
        });
        proven.then_some(true)
    }
    go(view, class, 6)
}
