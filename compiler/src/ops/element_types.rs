//! The numbers by which ONNX names element types.

use convc_runtime::DType;

const TYPES: &[(i32, DType)] = &[
    (1, DType::F32),
    (2, DType::U8),
    (3, DType::I8),
    (4, DType::U16),
    (5, DType::I16),
    (6, DType::I32),
    (7, DType::I64),
    (8, DType::Str),
    (9, DType::Bool),
    (10, DType::F16),
    (11, DType::F64),
    (12, DType::U32),
    (13, DType::U64),
    (14, DType::C64),
    (15, DType::C128),
    (16, DType::BF16),
    (17, DType::F8E4M3FN),
    (18, DType::F8E4M3FNUZ),
    (19, DType::F8E5M2),
    (20, DType::F8E5M2FNUZ),
    (21, DType::U4),
    (22, DType::I4),
    (23, DType::F4E2M1),
    (24, DType::F8E8M0),
    (25, DType::U2),
    (26, DType::I2),
];

/// The element type with ONNX's number `n` (`TensorProto.DataType`).
#[must_use]
pub fn dtype_from_onnx(n: i32) -> Option<DType> {
    TYPES.iter().find(|t| t.0 == n).map(|t| t.1)
}

/// ONNX's number of an element type.
#[must_use]
pub fn dtype_to_onnx(dtype: DType) -> i32 {
    TYPES.iter().find(|t| t.1 == dtype).map_or(0, |t| t.0)
}
