//! What the sample programs share.

use convc_runtime::{DType, Dim, Tensor};

/// A made-up f32 tensor: elements a wave, an open first size 1, other open sizes 32. `None` for other element types.
#[must_use]
pub fn wave(dtype: DType, shape: &[Dim]) -> Option<Tensor> {
    if dtype != DType::F32 {
        return None;
    }
    let size = |(axis, d): (usize, &Dim)| match d.as_fixed() {
        Some(n) => usize::try_from(n).ok(),
        None => Some(if axis == 0 { 1 } else { 32 }),
    };
    let sizes: Vec<usize> = shape.iter().enumerate().map(size).collect::<Option<_>>()?;
    let elements = (0..sizes.iter().product()).map(|i: usize| (i as f32 * 0.1).sin()).collect();
    Tensor::new(sizes, elements).ok()
}
