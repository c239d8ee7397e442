//! How two tensors differ.

use convc_runtime::{DType, Tensor};

/// How far two elements may lie apart: `|a - b| <= of_largest * max|b| + of_each * |b|`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// Relative to the largest element of the reference.
    pub of_largest: f64,
    /// Relative to each element of the reference.
    pub of_each: f64,
}

impl Tolerance {
    /// Room for eight roundings of an element type with few digits: what weights of such a type compose to is rounded to it.
    #[must_use]
    pub fn with_roundings_of(self, dtype: DType) -> Tolerance {
        let least = match dtype {
            DType::F16 => 2f64.powi(-8),
            DType::BF16 => 2f64.powi(-5),
            _ => 0.0,
        };
        Tolerance { of_largest: self.of_largest.max(least), of_each: self.of_each.max(least) }
    }
}

/// How two tensors of one name differ.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Difference {
    /// The name.
    pub name: String,
    /// The largest difference of two elements, for floating-point tensors.
    pub max_abs: Option<f64>,
    /// The largest difference relative to the reference's element.
    pub max_rel: Option<f64>,
    /// Whether they agree.
    pub agree: bool,
    /// What is wrong, if they do not.
    pub problem: Option<String>,
}

/// Compares `a` with the reference `b`. Elements that are no floating-point numbers must be equal; two NaNs agree.
#[must_use]
pub fn difference(name: &str, a: &Tensor, b: &Tensor, tolerance: Tolerance) -> Difference {
    let mut d = Difference { name: name.to_owned(), max_abs: None, max_rel: None, agree: false, problem: None };
    if (a.dtype(), a.shape()) != (b.dtype(), b.shape()) {
        d.problem = Some(format!("{}{:?} against {}{:?}", a.dtype(), a.shape(), b.dtype(), b.shape()));
        return d;
    }
    let (Some(x), Some(y)) = (a.to_f64s(), b.to_f64s()) else {
        d.agree = a == b;
        d.problem = (!d.agree).then(|| "elements differ".to_owned());
        return d;
    };
    let largest = y.iter().filter(|v| v.is_finite()).fold(0.0f64, |m, v| m.max(v.abs()));
    let (mut max_abs, mut max_rel, mut wrong) = (0.0f64, 0.0f64, 0usize);
    for (&x, &y) in x.iter().zip(&y) {
        if x == y || (x.is_nan() && y.is_nan()) {
            continue;
        }
        let difference = (x - y).abs();
        if !difference.is_finite() {
            wrong += 1;
            continue;
        }
        max_abs = max_abs.max(difference);
        max_rel = max_rel.max(difference / y.abs());
        wrong += usize::from(difference > tolerance.of_largest * largest + tolerance.of_each * y.abs());
    }
    d.max_abs = Some(max_abs);
    d.max_rel = Some(max_rel).filter(|r| r.is_finite());
    d.agree = wrong == 0;
    d.problem = (wrong > 0).then(|| format!("{wrong} of {} elements, by up to {max_abs:.3e}", x.len()));
    d
}

/// Whether no two elements lie further apart than `noise`: what is left where terms of some size cancel out.
#[must_use]
pub(super) fn differs_by_noise(a: &Tensor, b: &Tensor, noise: f64) -> bool {
    let (Some(x), Some(y)) = (a.to_f64s(), b.to_f64s()) else { return false };
    let alike = |(x, y): (&f64, &f64)| x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= noise;
    a.shape() == b.shape() && x.iter().zip(&y).all(alike)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIGHT: Tolerance = Tolerance { of_largest: 1e-9, of_each: 1e-7 };

    fn vector(v: &[f64]) -> Tensor {
        Tensor::vector(v.to_vec())
    }

    #[test]
    fn types_of_few_digits_have_room_for_their_roundings() {
        let (a, b) = (vector(&[1.0, 0.5]), vector(&[1.0 + 2f64.powi(-11), 0.5]));
        assert!(!difference("", &a, &b, TIGHT.with_roundings_of(DType::F32)).agree);
        assert!(difference("", &a, &b, TIGHT.with_roundings_of(DType::F16)).agree);
        let far = vector(&[1.05, 0.5]);
        assert!(!difference("", &a, &far, TIGHT.with_roundings_of(DType::F16)).agree);
        assert!(difference("", &a, &far, TIGHT.with_roundings_of(DType::BF16)).agree);
    }

    #[test]
    fn noise_is_small_everywhere() {
        let zero = vector(&[0.0, 1.0, f64::NAN]);
        assert!(differs_by_noise(&vector(&[1e-17, 1.0, f64::NAN]), &zero, 1e-13));
        for other in [[1e-12, 1.0, f64::NAN], [0.0, 1.0, 0.0], [f64::INFINITY, 1.0, f64::NAN]] {
            assert!(!differs_by_noise(&vector(&other), &zero, 1e-13), "{other:?}");
        }
        assert!(!differs_by_noise(&vector(&[0.0]), &zero, 1.0));
    }
}
