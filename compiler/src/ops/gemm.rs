//! Gemm. The third operand is optional from opset 11 on.

use convc_runtime::{AttrValue, ops::Gemm};

use super::{ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator};
use crate::ir::Value;

impl OnnxOperator for Gemm {
    const READS: &'static [&'static str] = &["Gemm"];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let alpha = node.float("alpha")?.unwrap_or(1.0);
        let beta = node.float("beta")?.unwrap_or(1.0);
        let trans_a = node.int("transA")?.unwrap_or(0) != 0;
        let trans_b = node.int("transB")?.unwrap_or(0) != 0;
        let operands = node.operands().to_vec();
        node.emit(Gemm { alpha, beta, trans_a, trans_b }, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        let mut attrs = Vec::new();
        for (name, v) in [("alpha", self.alpha), ("beta", self.beta)] {
            if v != 1.0 {
                attrs.push((name, AttrValue::Float(v)));
            }
        }
        for (name, v) in [("transA", self.trans_a), ("transB", self.trans_b)] {
            if v {
                attrs.push((name, AttrValue::Int(1)));
            }
        }
        if node.opset() >= 11 || node.operand(2).is_some() {
            return node.emit("Gemm", attrs);
        }
        if node.dtype(0).is_some_and(|d| !d.is_float()) {
            return Err(node.refuse("its operands are integers and it has no third one, which is optional from opset 11 on"));
        }
        let mut inputs = node.operand_names();
        inputs.push(node.float_like(0, "zero", 0.0));
        let y = node.output_names();
        node.node("Gemm", inputs, y, attrs);
        Ok(())
    }
}
