//! Normalisation by given statistics. Training forms (`training_mode` from opset 14, further outputs before) and statistics
//! for each position (`spatial` = 0, opsets before 9) are not executed.

use convc_runtime::{AttrValue, ops::BatchNormalization};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    properties::{Operands, Properties},
};
use crate::ir::Value;

/// ONNX's default of every normalisation's `epsilon`.
pub(super) const EPSILON: f32 = 1e-5;

/// `epsilon`, left out if it is ONNX's default.
pub(super) fn write_epsilon(epsilon: f32) -> Vec<(&'static str, AttrValue)> {
    if epsilon == EPSILON { Vec::new() } else { vec![("epsilon", AttrValue::Float(epsilon))] }
}

impl OnnxOperator for BatchNormalization {
    const READS: &'static [&'static str] = &["BatchNormalization"];
    const EXECUTED: &'static [super::Executed] = &[
        ("BatchNormalization", 7, types![F32, F64, F16]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let names = ["X", "scale", "B", "input_mean", "input_var"];
        let operands =
            names.iter().enumerate().map(|(i, n)| node.required(i, n).map(Some)).collect::<Result<Vec<_>, _>>()?;
        let epsilon = node.float("epsilon")?.unwrap_or(EPSILON);
        // Used in training only.
        node.float("momentum")?;
        if node.opset() < 9 && node.int("spatial")?.unwrap_or(1) != 1 {
            return Err(ImportError::Unsupported("statistics for each position (spatial = 0)".into()));
        }
        let training = node.opset() >= 14 && node.int("training_mode")?.unwrap_or(0) != 0;
        if training || (1..node.outputs()).any(|i| node.has_output(i)) {
            return Err(ImportError::Unsupported("training mode".into()));
        }
        node.emit(BatchNormalization { epsilon }, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.emit("BatchNormalization", write_epsilon(self.epsilon))
    }

    fn properties(&self) -> Properties {
        Properties::linear(Operands::Sets(&[&[0, 2, 3], &[1, 2]]))
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{DType, Fact};

    use super::*;
    use crate::ops::testing::{float, int, read, write};

    fn inputs() -> Vec<Fact> {
        [&[3, 2, 9][..], &[2], &[2], &[2], &[2]].map(|s| Fact::fixed(DType::F32, s)).to_vec()
    }

    #[test]
    fn inference_forms_of_all_opsets() {
        for (opset, attrs) in [
            (7, vec![int("spatial", 1), float("momentum", 0.5)]),
            (9, vec![float("momentum", 0.5)]),
            (15, vec![int("training_mode", 0)]),
        ] {
            let mut attrs = attrs;
            attrs.push(float("epsilon", 0.25));
            let (graph, y) = read("BatchNormalization", opset, &inputs(), attrs, 1).unwrap();
            let nodes = write(&graph, y[0], opset).unwrap();
            assert_eq!(nodes[0].attrs, [float("epsilon", 0.25)]);
            assert_eq!(nodes[0].inputs.len(), 5);
        }
    }

    #[test]
    fn training_is_unsupported() {
        let unsupported = |opset, attrs, outputs| {
            let r = read("BatchNormalization", opset, &inputs(), attrs, outputs);
            assert!(matches!(r, Err(ImportError::Unsupported(_))));
        };
        unsupported(15, vec![int("training_mode", 1)], 3);
        unsupported(15, vec![int("training_mode", 1)], 1);
        unsupported(9, vec![], 5);
        unsupported(7, vec![int("spatial", 0)], 1);
    }
}
