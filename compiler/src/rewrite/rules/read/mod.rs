//! How rules read operators: each reading stands here once, whatever the rules make of it.

pub(in crate::rewrite) mod axes;
