//! DepthToSpace (`mode` since opset 11) and SpaceToDepth (`mode` since opset 28).

use convc_runtime::{
    AttrValue,
    ops::{DepthToSpace, SpaceToDepth, depth_space::DepthMode},
};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    properties::{Movement, Operands, Properties},
};
use crate::ir::Value;

fn read(node: &mut NodeReader<'_>) -> Result<(Value, i64, DepthMode), ImportError> {
    let x = node.required(0, "input")?;
    let blocksize =
        node.int("blocksize")?.ok_or_else(|| ImportError::Invalid("attribute blocksize is missing".into()))?;
    let text = node.string("mode")?.unwrap_or_else(|| DepthMode::Dcr.text().into());
    let unknown = || ImportError::Invalid(format!("attribute mode is {text:?}, neither DCR nor CRD"));
    Ok((x, blocksize, DepthMode::from_text(&text).ok_or_else(unknown)?))
}

fn write(node: &mut NodeWriter<'_>, op_type: &str, block: i64, mode: DepthMode, since: i64) -> Result<(), ExportError> {
    let mut attrs = vec![("blocksize", AttrValue::Int(block))];
    if mode != DepthMode::Dcr {
        if node.opset() < since {
            return Err(node.refuse("the mode CRD"));
        }
        attrs.push(("mode", AttrValue::Str(mode.text().into())));
    }
    node.emit(op_type, attrs)
}

impl OnnxOperator for DepthToSpace {
    const READS: &'static [&'static str] = &["DepthToSpace"];
    const EXECUTED: &'static [super::Executed] = &[
        ("DepthToSpace", 1, types![F32, F64, F16]),
        ("DepthToSpace", 11, types![I8, U8]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let (x, blocksize, mode) = read(node)?;
        node.emit(DepthToSpace { blocksize, mode }, vec![Some(x)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        write(node, "DepthToSpace", self.blocksize, self.mode, 11)
    }

    fn properties(&self) -> Properties {
        Properties::moves(Movement::Permutes, Operands::FIRST)
    }
}

impl OnnxOperator for SpaceToDepth {
    const READS: &'static [&'static str] = &["SpaceToDepth"];
    const EXECUTED: &'static [super::Executed] = &[
        ("SpaceToDepth", 1, types![F32, F64, F16, I8, U8]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let (x, blocksize, mode) = read(node)?;
        node.emit(SpaceToDepth { blocksize, mode }, vec![Some(x)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        write(node, "SpaceToDepth", self.blocksize, self.mode, 28)
    }

    fn properties(&self) -> Properties {
        Properties::moves(Movement::Permutes, Operands::FIRST)
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{DType, Fact};

    use crate::ops::testing::{int, read, string, write};

    #[test]
    fn modes_by_opset() {
        let x = [Fact::fixed(DType::F32, &[1, 4, 2, 2])];
        for (op, since) in [("DepthToSpace", 11), ("SpaceToDepth", 28)] {
            let attrs = vec![int("blocksize", 2), string("mode", "CRD")];
            let (graph, y) = read(op, 28, &x, attrs.clone(), 1).unwrap();
            assert_eq!(write(&graph, y[0], since).unwrap()[0].attrs, attrs);
            assert!(write(&graph, y[0], since - 1).is_err());
            let (graph, y) = read(op, 28, &x, vec![attrs[0].clone(), string("mode", "DCR")], 1).unwrap();
            assert_eq!(write(&graph, y[0], 7).unwrap()[0].attrs, attrs[..1]);
            assert!(read(op, 28, &x, vec![], 1).is_err());
        }
    }
}
