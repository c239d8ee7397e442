//! The rules, one file per family. To add one, copy the nearest file and add its rules to the list below.

pub mod activation;
pub mod affine;
pub mod border;
pub mod branch;
pub mod channels;
pub mod clamp;
pub mod compose;
pub mod concat;
pub mod dense;
pub mod fill;
mod finite;
mod frame;
pub mod global;
pub mod groups;
pub mod identity;
pub mod involution;
pub mod maxpool;
pub mod mixed;
pub mod pad;
pub mod parts;
pub mod permute;
pub mod pool;
pub(super) mod read;
pub mod reduce;
pub mod resample;
pub mod rows;
pub mod shape;
pub mod sibling;
pub mod space;
pub mod space_to_depth;
pub mod systems;
pub mod transposed;
pub mod weights;

use super::rule::Rule;

/// Every rule, in the order in which they are tried.
#[must_use]
pub fn all() -> Vec<&'static Rule> {
    [
        identity::RULES,
        fill::RULES,
        shape::RULES,
        affine::RULES,
        clamp::RULES,
        reduce::RULES,
        pad::RULES,
        border::RULES,
        dense::RULES,
        rows::RULES,
        maxpool::RULES,
        transposed::RULES,
        resample::RULES,
        global::RULES,
        pool::RULES,
        compose::RULES,
        branch::RULES,
        channels::RULES,
        space::RULES,
        concat::RULES,
        parts::RULES,
        permute::RULES,
        groups::RULES,
        systems::do_conv::RULES,
        mixed::RULES,
        involution::RULES,
        systems::ghost::RULES,
        systems::sc_conv::RULES,
        systems::attention::RULES,
        space_to_depth::RULES,
        activation::RULES,
        sibling::RULES,
    ]
    .concat()
    .into_iter()
    .collect()
}

/// The rule with this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Rule> {
    all().into_iter().find(|r| r.name == name)
}
