//! NonZero and Compress (since opset 9; negative axes since 11).

use convc_runtime::{
    AttrValue,
    ops::{Compress, NonZero},
};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    concat::written_axis,
    properties::{Movement, Operands, Properties},
};
use crate::ir::Value;

impl OnnxOperator for NonZero {
    const READS: &'static [&'static str] = &["NonZero"];
    const EXECUTED: &'static [super::Executed] = &[
        ("NonZero", 1, types![I64]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let x = node.required(0, "X")?;
        node.emit(NonZero {}, vec![Some(x)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.since(9)?;
        node.emit("NonZero", Vec::new())
    }

    fn properties(&self) -> Properties {
        Properties::unknown()
    }
}

impl OnnxOperator for Compress {
    const READS: &'static [&'static str] = &["Compress"];
    const EXECUTED: &'static [super::Executed] = &[
        ("Compress", 9, types![F32, F64, F16, I8, I16, I32, I64, U8, U16, U32, U64, Bool, Str]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let operands = vec![Some(node.required(0, "input")?), Some(node.required(1, "condition")?)];
        let axis = node.int("axis")?.map(|a| node.from_front(a, 0));
        node.emit(Compress { axis }, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.since(9)?;
        let axis = self.axis.map(|a| written_axis(node, a, 11)).transpose()?;
        node.emit("Compress", axis.map(|a| ("axis", AttrValue::Int(a))).into_iter().collect())
    }

    fn properties(&self) -> Properties {
        Properties::moves(Movement::Picks, Operands::FIRST)
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{DType, Fact};

    use crate::ops::testing::{int, read, write};

    #[test]
    fn there_and_back() {
        let inputs = [Fact::fixed(DType::F32, &[2, 3]), Fact::fixed(DType::Bool, &[2])];
        let (graph, y) = read("Compress", 11, &inputs, vec![int("axis", -1)], 1).unwrap();
        assert_eq!(write(&graph, y[0], 11).unwrap()[0].attrs, [int("axis", 1)]);
        assert_eq!(write(&graph, y[0], 9).unwrap()[0].attrs, [int("axis", 1)]);
        let (graph, y) = read("Compress", 11, &inputs, vec![], 1).unwrap();
        assert!(write(&graph, y[0], 9).unwrap()[0].attrs.is_empty());
        let (graph, y) = read("NonZero", 13, &inputs[..1], vec![], 1).unwrap();
        assert!(write(&graph, y[0], 9).is_ok() && write(&graph, y[0], 8).is_err());
    }
}
