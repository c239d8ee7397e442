//! IsNaN (opset 9) and IsInf (opset 10).

use convc_runtime::{
    AttrValue, OpError,
    ops::{Operator, Predicate, predicate::PredicateKind},
};

use super::{ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator, properties::Properties};
use crate::ir::Value;

impl OnnxOperator for Predicate {
    const READS: &'static [&'static str] = PredicateKind::TEXTS;
    const EXECUTED: &'static [super::Executed] = &[
        ("IsNaN", 9, types![Bool]),
        ("IsInf", 10, types![Bool]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let kind =
            PredicateKind::from_text(node.op_type()).ok_or_else(|| OpError::Unsupported(node.op_type().to_owned()))?;
        let x = node.required(0, "X")?;
        let (mut detect_negative, mut detect_positive) = (None, None);
        if kind == PredicateKind::IsInf {
            detect_negative = Some(node.int("detect_negative")?.unwrap_or(1) != 0);
            detect_positive = Some(node.int("detect_positive")?.unwrap_or(1) != 0);
        }
        node.emit(Predicate { kind, detect_negative, detect_positive }, vec![Some(x)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.since(if self.kind == PredicateKind::IsNaN { 9 } else { 10 })?;
        let attrs = [("detect_negative", self.detect_negative), ("detect_positive", self.detect_positive)]
            .into_iter()
            .filter(|(_, v)| *v == Some(false))
            .map(|(name, _)| (name, AttrValue::Int(0)))
            .collect();
        node.emit(self.name(), attrs)
    }

    fn properties(&self) -> Properties {
        Properties { jumps: true, ..Properties::elementwise() }
    }
}
