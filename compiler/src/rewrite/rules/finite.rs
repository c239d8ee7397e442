//! Whether what a rule reads with a weight of 0 is finite.

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
