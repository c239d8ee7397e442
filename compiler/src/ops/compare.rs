//! Comparisons. Equal takes floats from opset 11 and strings from opset 19 on, Less and Greater integers from opset 9 on.

use convc_runtime::{
    DType, OpError,
    ops::{Compare, Operator, compare::CompareKind},
};

use super::{ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator, properties::Properties};
use crate::ir::Value;

impl OnnxOperator for Compare {
    const READS: &'static [&'static str] = CompareKind::TEXTS;
    const EXECUTED: &'static [super::Executed] = &[
        ("Equal", 7, types![Bool]),
        ("Greater", 7, types![Bool]),
        ("Less", 7, types![Bool]),
        ("GreaterOrEqual", 12, types![Bool]),
        ("LessOrEqual", 12, types![Bool]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let kind =
            CompareKind::from_text(node.op_type()).ok_or_else(|| OpError::Unsupported(node.op_type().to_owned()))?;
        let operands = node.operands().to_vec();
        node.emit(Compare { kind }, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        let equal = self.kind == CompareKind::Equal;
        let (opset, dtype) = (node.opset(), node.dtype(0));
        match (self.kind, dtype) {
            (CompareKind::GreaterOrEqual | CompareKind::LessOrEqual, _) => node.since(12)?,
            (_, Some(DType::Str)) if opset < 19 => {
                return Err(node.refuse("its operands are strings, which it takes from opset 19 on"));
            }
            (_, Some(d)) if equal && opset < 11 && !matches!(d, DType::Bool | DType::I32 | DType::I64) => {
                return Err(node.refuse(format!("its operands are {d}, which it takes from opset 11 on")));
            }
            (_, Some(d)) if !equal && opset < 9 && d.is_integer() => {
                return Err(node.refuse("its operands are integers, which it takes from opset 9 on"));
            }
            _ => {}
        }
        node.emit(self.name(), vec![])
    }

    fn properties(&self) -> Properties {
        Properties { commutative: self.kind == CompareKind::Equal, jumps: true, ..Properties::elementwise() }
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{Fact, Tensor};

    use super::*;
    use crate::ops::testing::{Arg, rewritten};

    #[test]
    fn types_by_opset() {
        let first = |kind: CompareKind, x: &Tensor| {
            let args = [Arg::Input(Fact::of(x)), Arg::Input(Fact::of(x))];
            let tensors = [x.clone(), x.clone()];
            (7..=28).find(|&opset| rewritten(kind.text(), (28, opset), &args, vec![], &tensors).is_ok())
        };
        let (f, i, s) = (Tensor::scalar(1f32), Tensor::scalar(1i64), Tensor::scalar(String::from("a")));
        assert_eq!([&f, &i, &s].map(|x| first(CompareKind::Equal, x)), [Some(11), Some(7), Some(19)]);
        assert_eq!([&f, &i].map(|x| first(CompareKind::Less, x)), [Some(7), Some(9)]);
        assert_eq!([&f, &i].map(|x| first(CompareKind::GreaterOrEqual, x)), [Some(12), Some(12)]);
    }
}
