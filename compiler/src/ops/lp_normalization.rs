//! Division by a norm. Opsets differ in element types only.

use convc_runtime::{AttrValue, ops::LpNormalization};

use super::{ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator, properties::Properties};
use crate::ir::Value;

impl OnnxOperator for LpNormalization {
    const READS: &'static [&'static str] = &["LpNormalization"];
    const EXECUTED: &'static [super::Executed] = &[
        ("LpNormalization", 1, types![F32, F64, F16]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let x = node.required(0, "input")?;
        let axis = node.axis("axis", -1)?;
        let p = node.int("p")?.unwrap_or(2);
        node.emit(LpNormalization { axis, p }, vec![Some(x)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.emit("LpNormalization", vec![("axis", AttrValue::Int(self.axis)), ("p", AttrValue::Int(self.p))])
    }

    fn properties(&self) -> Properties {
        Properties::continuous()
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{DType, Fact};

    use crate::ops::testing::{int, read, write};

    #[test]
    fn there_and_back() {
        let attrs = vec![int("axis", 1), int("p", 1)];
        let (graph, y) = read("LpNormalization", 7, &[Fact::fixed(DType::F32, &[3, 2])], attrs.clone(), 1).unwrap();
        assert_eq!(write(&graph, y[0], 7).unwrap()[0].attrs, attrs);
    }
}
