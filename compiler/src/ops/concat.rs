//! Concat. Axes may be negative since opset 11.

use convc_runtime::{AttrValue, ops::Concat};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    properties::{Movement, Operands, Properties},
};
use crate::ir::Value;

/// `axis` as an opset writes it that takes negative ones since `since`: counted from the front if it must be.
pub(super) fn written_axis(node: &NodeWriter<'_>, axis: i64, since: i64) -> Result<i64, ExportError> {
    if axis >= 0 || node.opset() >= since {
        return Ok(axis);
    }
    match node.operand(0).and_then(|o| o.fact) {
        Some(f) => Ok(axis + f.rank() as i64),
        None => Err(node.refuse("a negative axis")),
    }
}

/// [`written_axis`] as an attribute, left out where it is ONNX's default.
pub(super) fn axis_attr(
    node: &NodeWriter<'_>,
    axis: i64,
    since: i64,
    default: i64,
) -> Result<Vec<(&'static str, AttrValue)>, ExportError> {
    let axis = written_axis(node, axis, since)?;
    Ok(if axis == default { Vec::new() } else { vec![("axis", AttrValue::Int(axis))] })
}

/// Whether an axis is the last one of operand 0, which is the default of some operators.
pub(super) fn is_last(node: &NodeWriter<'_>, axis: i64) -> bool {
    let rank = node.operand(0).and_then(|o| o.fact).map(|f| f.rank() as i64);
    axis == -1 || rank == Some(axis + 1)
}

impl OnnxOperator for Concat {
    const READS: &'static [&'static str] = &["Concat"];
    const EXECUTED: &'static [super::Executed] = &[
        ("Concat", 4, types![F32, F64, F16, BF16, I8, I16, I32, I64, U8, U16, U32, U64, Bool, Str]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let Some(axis) = node.int("axis")? else {
            return Err(ImportError::Invalid("attribute axis is missing".into()));
        };
        let axis = node.from_front(axis, 0);
        let operands = node.operands().to_vec();
        node.emit(Concat { axis }, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        let axis = written_axis(node, self.axis, 11)?;
        node.emit("Concat", vec![("axis", AttrValue::Int(axis))])
    }

    fn properties(&self) -> Properties {
        Properties::moves(Movement::Joins, Operands::All)
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{DType, Fact};

    use crate::ops::testing::{int, read, write};

    #[test]
    fn axes_count_from_the_front_before_opset_11() {
        let x = Fact::fixed(DType::F32, &[1, 3]);
        let (graph, y) = read("Concat", 13, &[x.clone(), x], vec![int("axis", -1)], 1).unwrap();
        assert_eq!(write(&graph, y[0], 11).unwrap()[0].attrs, [int("axis", 1)]);
        assert_eq!(write(&graph, y[0], 9).unwrap()[0].attrs, [int("axis", 1)]);
        assert!(read("Concat", 13, &[Fact::fixed(DType::F32, &[1])], vec![], 1).is_err());
    }
}
