//! How two tensors differ.

use convc_runtime::Tensor;

/// How far two elements may lie apart: `|a - b| <= of_largest * max|b| + of_each * |b|`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// Relative to the largest element of the reference.
    pub of_largest: f64,
    /// Relative to each element of the reference.
    pub of_each: f64,
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
