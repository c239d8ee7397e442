//! Pooling over all spatial axes. Opsets differ in element types only.

use convc_runtime::{
    AttrValue, OpError,
    ops::{GlobalPool, Operator, global_pool::GlobalPoolKind},
};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    properties::{Nonnegative, Operands, Properties},
};
use crate::ir::Value;

impl OnnxOperator for GlobalPool {
    const READS: &'static [&'static str] = GlobalPoolKind::TEXTS;
    const EXECUTED: &'static [super::Executed] = &[
        ("GlobalAveragePool", 1, types![F32, F16]),
        ("GlobalMaxPool", 1, types![F32, F16]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let kind =
            GlobalPoolKind::from_text(node.op_type()).ok_or_else(|| OpError::Unsupported(node.op_type().to_owned()))?;
        let x = node.required(0, "X")?;
        let p = if kind == GlobalPoolKind::Lp { node.int("p")? } else { None };
        node.emit(GlobalPool { kind, p }, vec![Some(x)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.emit(self.name(), self.p.map(|p| ("p", AttrValue::Int(p))).into_iter().collect())
    }

    fn properties(&self) -> Properties {
        match self.kind {
            GlobalPoolKind::Average => Properties::averages(),
            GlobalPoolKind::Max => Properties { monotone: true, ..Properties::continuous() },
            GlobalPoolKind::Lp => {
                Properties { zeros: Operands::FIRST, nonnegative: Nonnegative::Always, ..Properties::continuous() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{DType, Fact};

    use crate::ops::testing::{int, read, write};

    #[test]
    fn there_and_back() {
        let x = Fact::fixed(DType::F32, &[3, 2, 9, 4]);
        for (name, attrs) in
            [("GlobalAveragePool", vec![]), ("GlobalMaxPool", vec![]), ("GlobalLpPool", vec![int("p", 1)])]
        {
            let (graph, y) = read(name, 7, std::slice::from_ref(&x), attrs.clone(), 1).unwrap();
            assert_eq!(graph.fact(y[0]).unwrap().to_string(), "f32[3, 2, 1, 1]");
            let nodes = write(&graph, y[0], 7).unwrap();
            assert_eq!((nodes[0].op_type.as_str(), &nodes[0].attrs), (name, &attrs));
        }
        assert!(read("GlobalMaxPool", 7, &[x], vec![int("p", 1)], 1).is_err());
    }
}
