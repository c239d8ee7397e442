//! Axes as operators name them.

use crate::rewrite::view::{Class, View};

/// The axis that an attribute names. Import counts axes from the front wherever the rank is known, so one that is negative still
/// is of a tensor of unknown rank, and no axis.
#[must_use]
pub(in crate::rewrite) fn axis(named: i64, rank: usize) -> Option<usize> {
    usize::try_from(named).ok().filter(|a| *a < rank)
}

/// The axes that an operand lists, in its order; those below 0 count from the back.
#[must_use]
pub(in crate::rewrite) fn listed(view: &dyn View, list: Class, rank: usize) -> Option<Vec<usize>> {
    from_either_end(&view.fact(list)?.i64s()?, rank)
}

/// Axes of a list, in its order; those below 0 count from the back.
#[must_use]
pub(in crate::rewrite) fn from_either_end(list: &[i64], rank: usize) -> Option<Vec<usize>> {
    let end = i64::try_from(rank).ok()?;
    list.iter().map(|&a| axis(if a < 0 { a.checked_add(end)? } else { a }, rank)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_count_from_either_end_and_attributes_from_the_front() {
        assert_eq!(from_either_end(&[-1, 0, 1], 2), Some(vec![1, 0, 1]));
        assert_eq!(
            (from_either_end(&[2], 2), from_either_end(&[-3], 2), from_either_end(&[i64::MIN], 2)),
            (None, None, None)
        );
        assert_eq!((axis(1, 2), axis(2, 2), axis(-1, 2)), (Some(1), None, None));
    }
}
