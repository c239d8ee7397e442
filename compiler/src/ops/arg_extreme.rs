//! ArgMax and ArgMin. Negative axes are new in opset 11, `select_last_index` in opset 12.

use convc_runtime::{
    AttrValue, OpError,
    ops::{ArgExtreme, Operator, arg_extreme::ArgExtremeKind},
};

use super::{ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator, properties::Properties};
use crate::ir::Value;

impl OnnxOperator for ArgExtreme {
    const READS: &'static [&'static str] = ArgExtremeKind::TEXTS;
    const EXECUTED: &'static [super::Executed] = &[
        ("ArgMax", 1, types![I64]),
        ("ArgMin", 1, types![I64]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let kind =
            ArgExtremeKind::from_text(node.op_type()).ok_or_else(|| OpError::Unsupported(node.op_type().to_owned()))?;
        let x = node.required(0, "data")?;
        let axis = node.axis("axis", 0)?;
        let keepdims = node.int("keepdims")?.unwrap_or(1) != 0;
        let select_last_index = node.int("select_last_index")?.unwrap_or(0) != 0;
        node.emit(ArgExtreme { kind, axis, keepdims, select_last_index }, vec![Some(x)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        let mut axis = [self.axis];
        if node.opset() < 11 {
            node.count_from_front(0, &mut axis)?;
        }
        let mut attrs = vec![("axis", AttrValue::Int(axis[0]))];
        if !self.keepdims {
            attrs.push(("keepdims", AttrValue::Int(0)));
        }
        if self.select_last_index {
            if node.opset() < 12 {
                return Err(node.refuse("select_last_index is new in opset 12"));
            }
            attrs.push(("select_last_index", AttrValue::Int(1)));
        }
        node.emit(self.name(), attrs)
    }

    fn properties(&self) -> Properties {
        Properties::unknown()
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{Fact, Tensor};

    use crate::ops::testing::{Arg, int, rewritten};

    #[test]
    fn negative_axes_and_last_positions_by_opset() {
        let x = Tensor::new([2, 3], vec![1f32, 3.0, 3.0, 2.0, 2.0, 1.0]).unwrap();
        let (args, tensors) = ([Arg::Input(Fact::of(&x))], [x]);
        for name in ["ArgMax", "ArgMin"] {
            let attrs = vec![int("axis", -1), int("keepdims", 0)];
            assert_eq!(rewritten(name, (13, 7), &args, attrs.clone(), &tensors).unwrap()[0].attrs[0], int("axis", 1));
            let last = [attrs, vec![int("select_last_index", 1)]].concat();
            let written = [int("axis", 1), int("keepdims", 0), int("select_last_index", 1)];
            assert!(rewritten(name, (13, 11), &args, last.clone(), &tensors).is_err());
            assert_eq!(rewritten(name, (13, 12), &args, last.clone(), &tensors).unwrap()[0].attrs, written);
        }
    }
}
