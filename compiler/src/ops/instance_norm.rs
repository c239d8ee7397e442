//! Normalisation of each plane. Opsets differ in element types only.

use convc_runtime::ops::InstanceNormalization;

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    batch_norm::{EPSILON, write_epsilon},
    properties::{Operands, Properties},
};
use crate::ir::Value;

impl OnnxOperator for InstanceNormalization {
    const READS: &'static [&'static str] = &["InstanceNormalization"];
    const EXECUTED: &'static [super::Executed] = &[
        ("InstanceNormalization", 6, types![F32, F16]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let operands =
            vec![Some(node.required(0, "input")?), Some(node.required(1, "scale")?), Some(node.required(2, "B")?)];
        let epsilon = node.float("epsilon")?.unwrap_or(EPSILON);
        node.emit(InstanceNormalization { epsilon }, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.emit("InstanceNormalization", write_epsilon(self.epsilon))
    }

    fn properties(&self) -> Properties {
        Properties::linear(Operands::Sets(&[&[1, 2]]))
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{DType, Fact};

    use crate::ops::testing::{float, read, write};

    #[test]
    fn there_and_back() {
        let inputs = [&[3, 2, 9][..], &[2], &[2]].map(|s| Fact::fixed(DType::F32, s));
        for attrs in [vec![], vec![float("epsilon", 0.5)]] {
            let (graph, y) = read("InstanceNormalization", 7, &inputs, attrs.clone(), 1).unwrap();
            assert_eq!(write(&graph, y[0], 7).unwrap()[0].attrs, attrs);
        }
    }
}
