//! Local response normalisation. Opsets differ in element types only.

use convc_runtime::{AttrValue, ops::LRN};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    properties::{Operands, Properties},
};
use crate::ir::Value;

const ALPHA: f32 = 1e-4;
const BETA: f32 = 0.75;
const BIAS: f32 = 1.0;

impl OnnxOperator for LRN {
    const READS: &'static [&'static str] = &["LRN"];
    const EXECUTED: &'static [super::Executed] = &[
        ("LRN", 1, types![F32, F16]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let x = node.required(0, "X")?;
        let alpha = node.float("alpha")?.unwrap_or(ALPHA);
        let beta = node.float("beta")?.unwrap_or(BETA);
        let bias = node.float("bias")?.unwrap_or(BIAS);
        let size = node.int("size")?.ok_or_else(|| ImportError::Invalid("attribute size of LRN is missing".into()))?;
        node.emit(LRN { alpha, beta, bias, size }, vec![Some(x)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        let mut attrs = vec![("size", AttrValue::Int(self.size))];
        for (name, value, default) in
            [("alpha", self.alpha, ALPHA), ("beta", self.beta, BETA), ("bias", self.bias, BIAS)]
        {
            if value != default {
                attrs.push((name, AttrValue::Float(value)));
            }
        }
        node.emit("LRN", attrs)
    }

    fn properties(&self) -> Properties {
        Properties { zeros: Operands::FIRST, ..Properties::continuous() }
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{DType, Fact};

    use crate::ops::testing::{float, int, read, write};

    #[test]
    fn there_and_back() {
        let x = [Fact::fixed(DType::F32, &[3, 2, 9])];
        for attrs in [vec![int("size", 3)], vec![int("size", 3), float("alpha", 0.5), float("bias", 2.0)]] {
            let (graph, y) = read("LRN", 7, &x, attrs.clone(), 1).unwrap();
            assert_eq!(write(&graph, y[0], 7).unwrap()[0].attrs, attrs);
        }
        assert!(read("LRN", 7, &x, vec![], 1).is_err());
    }
}
