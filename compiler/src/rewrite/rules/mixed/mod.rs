//! Convolutions with kernels mixed for each sample: CondConv and DynamicConv, recognised in what exporters write, and what can be
//! folded into their experts.

pub mod algebra;
pub mod chain;
pub mod constant;
pub mod experts;
pub mod groups;
pub mod linear;
mod mixture;
pub mod router;
pub mod samples;

use crate::rewrite::rule::Rule;

/// The rules of this family. What is outermost in a model comes first.
pub const RULES: &[&Rule] = &[
    &samples::MIXED_CONV_SAMPLES,
    &experts::MIXED_CONV_EXPERTS,
    &experts::MIXED_CONV_SINGLE,
    &groups::MIXED_CONV_GROUPS,
    &linear::MIXED_LINEAR,
    &algebra::MIXED_CONV_AFFINE,
    &algebra::MIXED_CONV_BIAS,
    &algebra::MIXED_CONV_CONSTANT,
    &chain::CONV_BEHIND_MIXED,
    &chain::CONV_BEFORE_MIXED,
    &constant::CONV_SAMPLES,
    &constant::CONV_OF_FOLDED_BATCH,
    &constant::CONSTANT_OF_BATCH,
    &router::SCALE_INTO_MATMUL,
    &router::SCALE_PAST_VIEW,
];
