//! Col2Im (since opset 18).

use convc_runtime::{AttrValue, ops::Col2Im};

use super::{ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator, properties::Properties};
use crate::ir::Value;

impl OnnxOperator for Col2Im {
    const READS: &'static [&'static str] = &["Col2Im"];
    const EXECUTED: &'static [super::Executed] = &[
        ("Col2Im", 18, types![F32, F16]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let operands = vec![
            Some(node.required(0, "input")?),
            Some(node.required(1, "image_shape")?),
            Some(node.required(2, "block_shape")?),
        ];
        let op =
            Col2Im { dilations: node.ints("dilations")?, pads: node.ints("pads")?, strides: node.ints("strides")? };
        node.emit(op, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.since(18)?;
        let lists = [("dilations", &self.dilations), ("pads", &self.pads), ("strides", &self.strides)];
        let attrs = lists.into_iter().filter_map(|(n, v)| Some((n, AttrValue::Ints(v.clone()?)))).collect();
        node.emit("Col2Im", attrs)
    }

    fn properties(&self) -> Properties {
        Properties::averages()
    }
}
