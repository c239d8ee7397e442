//! What is known of a value before it is computed.

use std::fmt;

use crate::{DType, Dim, Tensor};

/// Values known before the run, kept for small tensors only (at most [`Fact::MAX_KNOWN`] elements).
#[derive(Debug, Clone, PartialEq)]
pub enum Known {
    /// An i64 or i32 tensor whose elements are expressions over the input symbols, row-major.
    Dims(Vec<Dim>),
    /// A constant of any other type.
    Constant(Tensor),
}

/// The element type and shape of a value, and its elements where they are known.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    /// The element type.
    pub dtype: DType,
    /// The sizes.
    pub shape: Vec<Dim>,
    /// The elements, where they are known.
    pub known: Option<Known>,
}

impl Fact {
    /// The largest number of elements that is tracked in [`Fact::known`].
    pub const MAX_KNOWN: usize = 1024;

    /// A fact about a value with unknown elements.
    pub fn new(dtype: DType, shape: impl Into<Vec<Dim>>) -> Fact {
        Fact { dtype, shape: shape.into(), known: None }
    }

    /// A fact about a value of fixed sizes with unknown elements.
    #[must_use]
    pub fn fixed(dtype: DType, shape: &[usize]) -> Fact {
        Fact::new(dtype, shape.iter().map(|&n| Dim::from(n)).collect::<Vec<_>>())
    }

    /// The fact about this very tensor: its elements are known if there are few.
    #[must_use]
    pub fn of(tensor: &Tensor) -> Fact {
        let mut fact = Fact::fixed(tensor.dtype(), tensor.shape());
        if tensor.len() <= Fact::MAX_KNOWN {
            fact.known = Some(match (tensor.dtype(), tensor.to_i64s()) {
                (DType::I64 | DType::I32, Some(v)) => Known::Dims(v.into_iter().map(Dim::from).collect()),
                _ => Known::Constant(tensor.clone()),
            });
        }
        fact
    }

    /// The same fact with these elements, where `dims` are as many as the shape says and few enough to keep.
    #[must_use]
    pub fn with_dims(mut self, dims: Vec<Dim>) -> Fact {
        let count = Dim::product(self.shape.iter()).as_fixed();
        self.known =
            (dims.len() <= Fact::MAX_KNOWN && count == i64::try_from(dims.len()).ok()).then_some(Known::Dims(dims));
        self
    }

    /// Number of dimensions.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// The sizes, if all are fixed and not negative.
    #[must_use]
    pub fn fixed_shape(&self) -> Option<Vec<usize>> {
        self.shape.iter().map(|d| usize::try_from(d.as_fixed()?).ok()).collect()
    }

    /// Number of elements as an expression.
    #[must_use]
    pub fn element_count(&self) -> Dim {
        Dim::product(self.shape.iter())
    }

    /// The elements of an integer tensor as expressions.
    #[must_use]
    pub fn dims(&self) -> Option<Vec<Dim>> {
        match &self.known {
            Some(Known::Dims(d)) => Some(d.clone()),
            Some(Known::Constant(t)) => Some(t.to_i64s()?.into_iter().map(Dim::from).collect()),
            None => None,
        }
    }

    /// The elements of an integer tensor, if all are fixed.
    #[must_use]
    pub fn i64s(&self) -> Option<Vec<i64>> {
        self.dims()?.iter().map(Dim::as_fixed).collect()
    }

    /// The elements of a floating-point constant.
    #[must_use]
    pub fn f64s(&self) -> Option<Vec<f64>> {
        match &self.known {
            Some(Known::Constant(t)) => t.to_f64s(),
            _ => None,
        }
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, Shape(&self.shape))
    }
}

/// Displays sizes as `[1, N, 2*H + 1]`.
pub struct Shape<'a>(pub &'a [Dim]);

impl fmt::Display for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, d) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{d}")?;
        }
        f.write_str("]")
    }
}
