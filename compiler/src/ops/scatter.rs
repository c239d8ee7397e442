//! ScatterElements (called Scatter in opsets 9 and 10) and ScatterND (since opset 11). Both join by sum and product since opset
//! 16, by maximum and minimum since 18. TensorScatter (since opset 24).

use convc_runtime::{
    AttrValue,
    ops::{
        ScatterElements, ScatterND, TensorScatter,
        scatter::{CacheMode, Reduction},
    },
};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    concat::axis_attr,
    properties::{Effort, Movement, Operands, Properties},
};
use crate::ir::Value;

fn read_reduction(node: &mut NodeReader<'_>) -> Result<Reduction, ImportError> {
    let Some(text) = node.string("reduction")? else { return Ok(Reduction::None) };
    let unknown = || ImportError::Invalid(format!("attribute reduction is {text:?}, which is no way to join"));
    Reduction::from_text(&text).ok_or_else(unknown)
}

fn write_reduction(node: &NodeWriter<'_>, reduction: Reduction) -> Result<Vec<(&'static str, AttrValue)>, ExportError> {
    let since = match reduction {
        Reduction::None => return Ok(Vec::new()),
        Reduction::Add | Reduction::Mul => 16,
        Reduction::Max | Reduction::Min => 18,
    };
    if node.opset() < since {
        return Err(node.refuse(format!("the reduction {}", reduction.text())));
    }
    Ok(vec![("reduction", AttrValue::Str(reduction.text().into()))])
}

fn three(node: &NodeReader<'_>) -> Result<Vec<Option<Value>>, ImportError> {
    Ok(vec![Some(node.required(0, "data")?), Some(node.required(1, "indices")?), Some(node.required(2, "updates")?)])
}

/// Both operators write elements of the last operand into the first, or combine them with what is there.
fn scattering(reduction: Reduction) -> Properties {
    const WRITTEN: Operands = Operands::Sets(&[&[0, 2]]);
    let moved = Properties { monotone: true, effort: Effort::PICKS, ..Properties::moves(Movement::Joins, WRITTEN) };
    match reduction {
        Reduction::None => moved,
        Reduction::Add => Properties { movement: Movement::Computes, ..moved },
        Reduction::Mul => Properties { linear: Operands::None, monotone: false, movement: Movement::Computes, ..moved },
        Reduction::Max | Reduction::Min => Properties { linear: Operands::None, ..moved },
    }
}

impl OnnxOperator for ScatterElements {
    const READS: &'static [&'static str] = &["ScatterElements", "Scatter"];
    const EXECUTED: &'static [super::Executed] = &[
        ("ScatterElements", 11, types![F32, F64, F16, BF16, I8, I16, I32, I64, U8, U16, U32, U64, Bool, Str]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let operands = three(node)?;
        let axis = node.axis("axis", 0)?;
        let reduction = read_reduction(node)?;
        node.emit(ScatterElements { axis, reduction }, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.since(9)?;
        let mut attrs = axis_attr(node, self.axis, 11, 0)?;
        attrs.extend(write_reduction(node, self.reduction)?);
        let name = if node.opset() < 11 { "Scatter" } else { "ScatterElements" };
        node.emit(name, attrs)
    }

    fn properties(&self) -> Properties {
        scattering(self.reduction)
    }
}

impl OnnxOperator for ScatterND {
    const READS: &'static [&'static str] = &["ScatterND"];
    const EXECUTED: &'static [super::Executed] = &[
        ("ScatterND", 11, types![F32, F64, F16, BF16, I8, I16, I32, I64, U8, U16, U32, U64, Bool, Str]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let operands = three(node)?;
        let reduction = read_reduction(node)?;
        node.emit(ScatterND { reduction }, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.since(11)?;
        let attrs = write_reduction(node, self.reduction)?;
        node.emit("ScatterND", attrs)
    }

    fn properties(&self) -> Properties {
        scattering(self.reduction)
    }
}

impl OnnxOperator for TensorScatter {
    const READS: &'static [&'static str] = &["TensorScatter"];
    const EXECUTED: &'static [super::Executed] = &[
        ("TensorScatter", 24, types![F32, F64, F16, BF16, I8, I16, I32, I64, U8, U16, U32, U64, Bool]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let operands = vec![Some(node.required(0, "past_cache")?), Some(node.required(1, "update")?), node.operand(2)];
        let axis = node.axis("axis", -2)?;
        let text = node.string("mode")?.unwrap_or_else(|| CacheMode::Linear.text().into());
        let unknown = || ImportError::Invalid(format!("attribute mode is {text:?}, which is no way to write a cache"));
        let mode = CacheMode::from_text(&text).ok_or_else(unknown)?;
        node.emit(TensorScatter { axis, mode }, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        node.since(24)?;
        let mut attrs = axis_attr(node, self.axis, 24, -2)?;
        if self.mode != CacheMode::Linear {
            attrs.push(("mode", AttrValue::Str(self.mode.text().into())));
        }
        node.emit("TensorScatter", attrs)
    }

    fn properties(&self) -> Properties {
        Properties { effort: Effort::PICKS, ..Properties::moves(Movement::Joins, Operands::Sets(&[&[0, 1]])) }
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{DType, Fact};

    use crate::ops::testing::{int, read, string, write};

    #[test]
    fn names_and_reductions_by_opset() {
        let (x, i) = (Fact::fixed(DType::F32, &[2, 5]), Fact::fixed(DType::I64, &[2, 1]));
        let inputs = [x, i, Fact::fixed(DType::F32, &[2, 1])];
        let (graph, y) = read("Scatter", 9, &inputs, vec![int("axis", 1)], 1).unwrap();
        for (opset, name) in [(9, "Scatter"), (11, "ScatterElements"), (18, "ScatterElements")] {
            let node = write(&graph, y[0], opset).unwrap().remove(0);
            assert_eq!((node.op_type.as_str(), node.attrs), (name, vec![int("axis", 1)]));
        }
        assert!(write(&graph, y[0], 8).is_err());
        for (reduction, since) in [("add", 16), ("max", 18)] {
            let attrs = |axis| vec![int("axis", axis), string("reduction", reduction)];
            let (graph, y) = read("ScatterElements", 18, &inputs, attrs(-1), 1).unwrap();
            assert_eq!(write(&graph, y[0], since).unwrap()[0].attrs, attrs(1));
            assert!(write(&graph, y[0], since - 1).is_err());
        }
        assert!(read("ScatterElements", 18, &inputs, vec![string("reduction", "mean")], 1).is_err());
    }
}
