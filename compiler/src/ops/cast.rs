//! Cast and CastLike. `saturate` (since opset 19) and `round_mode` (24) concern types that are carried but not executed.

use convc_runtime::{AttrValue, DType, ops::Cast};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator, dtype_to_onnx,
    properties::{Nonnegative, Operands, Properties},
};
use crate::ir::Value;

/// An element type as an attribute.
pub(super) fn dtype_attr(dtype: DType) -> AttrValue {
    AttrValue::Int(i64::from(dtype_to_onnx(dtype)))
}

impl OnnxOperator for Cast {
    const READS: &'static [&'static str] = &["Cast", "CastLike"];
    const EXECUTED: &'static [super::Executed] = &[
        ("Cast", 6, types![F32, F64, F16, BF16, I8, I16, I32, I64, U8, U16, U32, U64, Bool, Str]),
        ("CastLike", 15, types![F32, F64, F16, BF16, I8, I16, I32, I64, U8, U16, U32, U64, Bool, Str]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let x = node.required(0, "input")?;
        node.int("saturate")?;
        node.string("round_mode")?;
        let to = if node.op_type() == "CastLike" {
            let like = node.required(1, "target_type")?;
            let to = node.fact_of(like).map(|f| f.dtype);
            to.ok_or_else(|| ImportError::Unsupported("CastLike of a target of unknown type".into()))?
        } else {
            node.dtype("to")?.ok_or_else(|| ImportError::Invalid("attribute to is missing".into()))?
        };
        node.emit(Cast { to }, vec![Some(x)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        let from = node.operand(0).and_then(|o| o.fact).map(|f| f.dtype);
        let newer = |d| d == DType::BF16 && node.opset() < 13 || d == DType::Str && node.opset() < 9;
        if let Some(d) = [Some(self.to), from].into_iter().flatten().find(|&d| newer(d)) {
            return Err(node.refuse(format!("the type {d}")));
        }
        node.emit("Cast", vec![("to", dtype_attr(self.to))])
    }

    fn properties(&self) -> Properties {
        let to_float = self.to.is_float();
        // Integers wrap around where they are narrowed.
        let nonnegative = if to_float { Operands::FIRST } else { Operands::None };
        Properties {
            zeros: Operands::FIRST,
            nonnegative: Nonnegative::Where(nonnegative),
            jumps: !to_float,
            ..Properties::elementwise()
        }
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{DType, Fact};

    use crate::ops::testing::{int, read, write};

    #[test]
    fn cast_like_is_a_cast() {
        let (x, like) = (Fact::fixed(DType::F32, &[2]), Fact::fixed(DType::I64, &[]));
        let (graph, y) = read("CastLike", 19, &[x.clone(), like], vec![int("saturate", 1)], 1).unwrap();
        let node = write(&graph, y[0], 7).unwrap().remove(0);
        assert_eq!((node.op_type.as_str(), node.inputs, node.attrs), ("Cast", vec!["x0".into()], vec![int("to", 7)]));
        let (graph, y) = read("Cast", 13, std::slice::from_ref(&x), vec![int("to", 16)], 1).unwrap();
        assert!(write(&graph, y[0], 13).is_ok() && write(&graph, y[0], 11).is_err());
        for bad in [vec![], vec![int("to", 99)], vec![int("to", 17)]] {
            assert!(read("Cast", 13, std::slice::from_ref(&x), bad, 1).is_err());
        }
    }
}
