//! What can go wrong when tensors are made and operators inferred or run.

use crate::DType;

/// A tensor or constant that cannot be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TensorError {
    /// Elements and shape disagree.
    #[error("{elements} elements do not fill the shape {shape:?}")]
    ElementCount {
        /// The shape asked for.
        shape: Vec<usize>,
        /// The elements given.
        elements: usize,
    },
    /// Bytes, type and shape disagree.
    #[error("{bytes} bytes do not fill {dtype}{shape:?}")]
    ByteCount {
        /// The type asked for.
        dtype: DType,
        /// The shape asked for.
        shape: Vec<usize>,
        /// The bytes given.
        bytes: usize,
    },
    /// The type is carried through, but no operator computes with it.
    #[error("elements of type {dtype} are carried but not executed")]
    NotExecuted {
        /// The type.
        dtype: DType,
    },
    /// Field elements exist only while tests run.
    #[error("elements of the test field cannot be stored")]
    FieldElements,
}

/// Why an operator refuses its inputs or attributes. The caller adds which node it was.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum OpError {
    /// Too few inputs, or one left out that is required.
    #[error("input {index} ({name}) is missing")]
    MissingInput {
        /// Position.
        index: usize,
        /// Its name in the operator's specification.
        name: &'static str,
    },
    /// An input's element type is not one the operator takes.
    #[error("input {index} ({name}) has element type {dtype}, {expected} is needed")]
    InputType {
        /// Position.
        index: usize,
        /// Its name in the operator's specification.
        name: &'static str,
        /// The type it has.
        dtype: DType,
        /// The types taken.
        expected: &'static str,
    },
    /// An input's shape does not fit the attributes or the other inputs.
    #[error("input {index} ({name}) has shape {shape}, {expected}")]
    InputShape {
        /// Position.
        index: usize,
        /// Its name in the operator's specification.
        name: &'static str,
        /// The shape it has.
        shape: String,
        /// What it should be, as a sentence part.
        expected: String,
    },
    /// An attribute has a value that the specification or the inputs do not allow.
    #[error("attribute {name}: {problem}")]
    Attribute {
        /// Its name.
        name: &'static str,
        /// What is wrong, with the value.
        problem: String,
    },
    /// The contents of an input are not allowed.
    #[error("input {index} ({name}): {problem}")]
    InputValue {
        /// Position.
        index: usize,
        /// Its name in the operator's specification.
        name: &'static str,
        /// What is wrong, with the value.
        problem: String,
    },
    /// Legal, but not implemented.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// The result would hold more elements than the limit allows, or than can be counted.
    #[error("the output {shape} would be larger than the limit of {limit} elements")]
    TooLarge {
        /// The shape it would have.
        shape: String,
        /// The limit.
        limit: usize,
    },
    /// A tensor could not be made.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// A dimension could not be evaluated.
    #[error(transparent)]
    Dim(#[from] crate::dim::DimError),
}
