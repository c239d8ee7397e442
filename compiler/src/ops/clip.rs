//! Clip. Its bounds are attributes before opset 11; integers are new in opset 12.

use convc_runtime::{AttrValue, DType, Tensor, ops::Clip};

use super::{ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator};
use crate::ir::Value;

impl OnnxOperator for Clip {
    const READS: &'static [&'static str] = &["Clip"];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        if node.opset() >= 11 {
            let operands = node.operands().to_vec();
            return node.emit(Clip {}, operands);
        }
        let x = node.required(0, "input")?;
        let dtype = node.fact(0).map_or(DType::F32, |f| f.dtype);
        let bounds = [node.float("min")?.filter(|&v| v > f32::MIN), node.float("max")?.filter(|&v| v < f32::MAX)];
        let mut operands = vec![Some(x)];
        for bound in bounds {
            let tensor = bound.map(|v| Tensor::scalar(v).rounded_to(dtype));
            operands.push(tensor.map(|t| node.add_constant(&t)).transpose()?);
        }
        node.emit(Clip {}, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        if node.opset() < 12 && node.dtype(0).is_some_and(DType::is_integer) {
            return Err(node.refuse("its operand is of integers, which it takes from opset 12 on"));
        }
        if node.opset() >= 11 {
            return node.emit("Clip", vec![]);
        }
        let mut attrs = Vec::new();
        for (i, name) in [(1, "min"), (2, "max")] {
            if let Some(v) = node.constant_float(i, name)? {
                attrs.push((name, AttrValue::Float(v)));
            }
        }
        let x = node.operand_names().into_iter().take(1).collect();
        let y = node.output_names();
        node.node("Clip", x, y, attrs);
        Ok(())
    }
}
