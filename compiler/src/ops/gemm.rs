//! Gemm. The third operand is optional from opset 11 on.

use convc_runtime::{AttrValue, ops::Gemm};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    properties::{MultiplyAdds, Operands, Properties},
};
use crate::ir::Value;

impl OnnxOperator for Gemm {
    const READS: &'static [&'static str] = &["Gemm"];
    const EXECUTED: &'static [super::Executed] = &[
        ("Gemm", 7, types![F32, F64, F16]),
    ];

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
            return Err(
                node.refuse("its operands are integers and it has no third one, which is optional from opset 11 on")
            );
        }
        let mut inputs = node.operand_names();
        inputs.push(node.float_like(0, "zero", 0.0));
        let y = node.output_names();
        node.node("Gemm", inputs, y, attrs);
        Ok(())
    }

    fn properties(&self) -> Properties {
        Properties {
            multiply_adds: MultiplyAdds::Along(isize::from(!self.trans_a)),
            ..Properties::linear(Operands::Sets(&[&[0, 2], &[1, 2]]))
        }
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{Fact, Tensor};

    use crate::ops::testing::{Arg, float, int, rewritten};

    #[test]
    fn the_third_operand_is_required_before_opset_11() {
        let a = Tensor::new([3, 2], vec![1f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        let b = Tensor::new([2, 3], vec![1f32, -2.0, 3.0, 0.5, 5.0, 6.0]).unwrap();
        let args = [Arg::Input(Fact::of(&a)), Arg::Input(Fact::of(&b))];
        let attrs = vec![float("alpha", 0.5), float("beta", 2.0), int("transA", 1), int("transB", 1)];
        let tensors = [a, b];
        let inputs = |opset| rewritten("Gemm", (13, opset), &args, attrs.clone(), &tensors).unwrap()[0].inputs.len();
        assert_eq!((inputs(7), inputs(10), inputs(11)), (3, 3, 2));
        let three = [&args[..], &[Arg::Constant(Tensor::vector(vec![1f32, 2.0]))]].concat();
        assert_eq!(rewritten("Gemm", (7, 13), &three, attrs, &tensors).unwrap()[0].attrs.len(), 4);
    }
}
