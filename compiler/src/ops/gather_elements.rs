//! GatherElements and GatherND (since opset 11; `batch_dims` since 12).

use convc_runtime::{
    AttrValue,
    ops::{GatherElements, GatherND},
};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    concat::axis_attr,
    properties::{Effort, Movement, Operands, Properties},
};
use crate::ir::Value;

impl OnnxOperator for GatherElements {
    const READS: &'static [&'static str] = &["GatherElements"];
    const EXECUTED: &'static [super::Executed] = &[
        ("GatherElements", 11, types![F32, F64, F16, BF16, I8, I16, I32, I64, U8, U16, U32, U64, Bool, Str]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let (x, indices) = (node.required(0, "data")?, node.required(1, "indices")?);
        let axis = node.axis("axis", 0)?;
        node.emit(GatherElements { axis }, vec![Some(x), Some(indices)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.since(11)?;
        let attrs = axis_attr(node, self.axis, 11, 0)?;
        node.emit("GatherElements", attrs)
    }

    fn properties(&self) -> Properties {
        Properties { effort: Effort::PICKS, ..Properties::moves(Movement::Picks, Operands::FIRST) }
    }
}

impl OnnxOperator for GatherND {
    const READS: &'static [&'static str] = &["GatherND"];
    const EXECUTED: &'static [super::Executed] = &[
        ("GatherND", 11, types![F32, F64, F16, BF16, I8, I16, I32, I64, U8, U16, U32, U64, Bool, Str]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let (x, indices) = (node.required(0, "data")?, node.required(1, "indices")?);
        let batch_dims = node.int("batch_dims")?.unwrap_or(0);
        node.emit(GatherND { batch_dims }, vec![Some(x), Some(indices)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        if self.batch_dims == 0 {
            node.since(11)?;
            return node.emit("GatherND", Vec::new());
        }
        node.since(12)?;
        node.emit("GatherND", vec![("batch_dims", AttrValue::Int(self.batch_dims))])
    }

    fn properties(&self) -> Properties {
        Properties { effort: Effort::PICKS, ..Properties::moves(Movement::Picks, Operands::FIRST) }
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{DType, Fact};

    use crate::ops::testing::{int, read, write};

    #[test]
    fn there_and_back() {
        let inputs = [Fact::fixed(DType::F32, &[2, 3]), Fact::fixed(DType::I64, &[2, 1])];
        let (graph, y) = read("GatherElements", 11, &inputs, vec![int("axis", 1)], 1).unwrap();
        assert_eq!(write(&graph, y[0], 11).unwrap()[0].attrs, [int("axis", 1)]);
        assert!(write(&graph, y[0], 10).is_err());
        let (graph, y) = read("GatherND", 12, &inputs, vec![int("batch_dims", 1)], 1).unwrap();
        assert_eq!(write(&graph, y[0], 12).unwrap()[0].attrs, [int("batch_dims", 1)]);
        assert!(write(&graph, y[0], 11).is_err());
    }
}
