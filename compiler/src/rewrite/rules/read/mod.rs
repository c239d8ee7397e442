//! How rules read operators: each reading stands here once, whatever the rules make of it.

pub(in crate::rewrite) mod axes;
pub(in crate::rewrite) mod conv;
pub(in crate::rewrite) mod reshape;
pub(in crate::rewrite) mod route;
pub(in crate::rewrite) mod scale;
pub(in crate::rewrite) mod slice;
pub(in crate::rewrite) mod transpose;
