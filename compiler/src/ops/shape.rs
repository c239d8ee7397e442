//! Shape and Size. Shape takes part of the sizes since opset 15.

use convc_runtime::{
    AttrValue,
    ops::{Shape, Size},
};

use super::{ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator};
use crate::ir::Value;

impl OnnxOperator for Shape {
    const READS: &'static [&'static str] = &["Shape"];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let x = node.required(0, "data")?;
        let (start, end) = (node.int("start")?.unwrap_or(0), node.int("end")?);
        node.emit(Shape { start, end }, vec![Some(x)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        let mut attrs = Vec::new();
        if self.start != 0 {
            attrs.push(("start", AttrValue::Int(self.start)));
        }
        attrs.extend(self.end.map(|e| ("end", AttrValue::Int(e))));
        if node.opset() >= 15 || attrs.is_empty() {
            return node.emit("Shape", attrs);
        }
        let Some(rank) = node.operand(0).and_then(|o| o.fact).map(convc_runtime::Fact::rank) else {
            return Err(node.refuse("some of the sizes of a tensor of unknown rank"));
        };
        // All sizes, then a slice of them.
        let range = self.range(rank);
        let all = node.fresh("shape");
        let inputs = node.operand_names();
        node.node("Shape", inputs, vec![all.clone()], Vec::new());
        let (start, end) = (range.start as i64, range.end as i64);
        if node.opset() < 10 {
            let attrs = vec![("starts", AttrValue::Ints(vec![start])), ("ends", AttrValue::Ints(vec![end]))];
            node.node("Slice", vec![all], node.output_names(), attrs);
        } else {
            let start = node.constant("starts", convc_runtime::Tensor::vector(vec![start]));
            let end = node.constant("ends", convc_runtime::Tensor::vector(vec![end]));
            node.node("Slice", vec![all, start, end], node.output_names(), Vec::new());
        }
        Ok(())
    }
}

impl OnnxOperator for Size {
    const READS: &'static [&'static str] = &["Size"];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let x = node.required(0, "data")?;
        node.emit(Size {}, vec![Some(x)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.emit("Size", Vec::new())
    }
}
