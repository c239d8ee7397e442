//! Transpositions.

use convc_runtime::ops::Transpose;

/// For each axis of the result the axis of the operand, of this rank, that it is. Without an order all axes are reversed. `None` if
/// it names an axis that is not there, or not as many as there are.
pub(in crate::rewrite) fn order(op: &Transpose, rank: usize) -> Option<Vec<usize>> {
    if op.perm.is_empty() { Some((0..rank).rev().collect()) } else { op.order(rank).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_one_of_all_axes() {
        let of = |perm: &[i64]| order(&Transpose { perm: perm.to_vec() }, 3);
        assert_eq!((of(&[]), of(&[0, 2, 1])), (Some(vec![2, 1, 0]), Some(vec![0, 2, 1])));
        assert_eq!((of(&[0, 1]), of(&[0, 1, 3]), of(&[0, 0, 1])), (None, None, None));
    }
}
