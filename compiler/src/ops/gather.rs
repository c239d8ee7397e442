//! Gather. Negative axes and indices exist since opset 11.

use convc_runtime::ops::Gather;

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    concat::axis_attr,
    properties::{Effort, Movement, Operands, Properties},
};
use crate::ir::Value;

impl OnnxOperator for Gather {
    const READS: &'static [&'static str] = &["Gather"];
    const EXECUTED: &'static [super::Executed] = &[
        ("Gather", 1, types![F32, F64, F16, BF16, I8, I16, I32, I64, U8, U16, U32, U64, Bool, Str]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let (x, indices) = (node.required(0, "data")?, node.required(1, "indices")?);
        let axis = node.axis("axis", 0)?;
        node.emit(Gather { axis }, vec![Some(x), Some(indices)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        let attrs = axis_attr(node, self.axis, 11, 0)?;
        node.emit("Gather", attrs)
    }

    fn properties(&self) -> Properties {
        Properties { effort: Effort::PICKS, ..Properties::moves(Movement::Picks, Operands::FIRST) }
    }
}
