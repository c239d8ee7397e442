//! Normalisation over any axes, from opset 9 on.

use convc_runtime::{AttrValue, ops::MeanVarianceNormalization};

use super::{ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator, properties::Properties};
use crate::ir::Value;

impl OnnxOperator for MeanVarianceNormalization {
    const READS: &'static [&'static str] = &["MeanVarianceNormalization"];
    const EXECUTED: &'static [super::Executed] = &[];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let x = node.required(0, "X")?;
        let axes = node.ints("axes")?.unwrap_or_else(|| vec![0, 2, 3]);
        let axes = node.all_from_front(axes, 0);
        node.emit(MeanVarianceNormalization { axes }, vec![Some(x)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        if node.opset() < 9 {
            return Err(node.refuse("it needs opset 9"));
        }
        node.emit("MeanVarianceNormalization", vec![("axes", AttrValue::Ints(self.axes.clone()))])
    }

    fn properties(&self) -> Properties {
        Properties::continuous()
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{DType, Fact};

    use crate::ops::testing::{ints, read, write};

    #[test]
    fn there_and_back() {
        let x = [Fact::fixed(DType::F32, &[3, 2, 4, 4])];
        let (graph, y) = read("MeanVarianceNormalization", 9, &x, vec![], 1).unwrap();
        assert_eq!(write(&graph, y[0], 9).unwrap()[0].attrs, [ints("axes", &[0, 2, 3])]);
    }
}
