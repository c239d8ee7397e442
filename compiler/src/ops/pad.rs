//! Pad. Pads and value are attributes before opset 11; `axes` exists since opset 18, the mode `wrap` since 19.

use convc_runtime::{
    AttrValue, DType, Tensor,
    ops::{Cast, Pad, pad::PadMode},
};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    properties::{Movement, Operands, Properties},
    reshape::first_name,
};
use crate::ir::Value;

impl OnnxOperator for Pad {
    const READS: &'static [&'static str] = &["Pad"];
    const EXECUTED: &'static [super::Executed] = &[
        ("Pad", 2, types![F32, F64, F16]),
        ("Pad", 11, types![I8, I32, I64, U8, U32, U64]),
        ("Pad", 13, types![Bool]),
        ("Pad", 21, types![BF16]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let x = node.required(0, "data")?;
        let text = node.string("mode")?.unwrap_or_else(|| "constant".into());
        let mode = PadMode::from_text(&text)
            .ok_or_else(|| ImportError::Invalid(format!("attribute mode is {text:?}, which is not a way to pad")))?;
        if node.opset() >= 11 {
            let operands = vec![Some(x), Some(node.required(1, "pads")?), node.operand(2), node.operand(3)];
            return node.emit(Pad { mode }, operands);
        }
        let pads = node.ints("pads")?.ok_or_else(|| ImportError::Invalid("attribute pads is missing".into()))?;
        let value = node.float("value")?.filter(|&v| v != 0.0);
        let pads = node.add_ints(&pads)?;
        let value = match value {
            None => None,
            Some(v) => Some(scalar(node, x, v)?),
        };
        node.emit(Pad { mode }, vec![Some(x), Some(pads), value])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        let opset = node.opset();
        if self.mode == PadMode::Wrap && opset < 19 {
            return Err(node.refuse("the mode wrap"));
        }
        let mut attrs = Vec::new();
        if self.mode != PadMode::Constant {
            attrs.push(("mode", AttrValue::Str(self.mode.text().into())));
        }
        if opset >= 18 || opset >= 11 && node.operand(3).is_none() {
            return node.emit("Pad", attrs);
        }
        let pads = all_pads(node)?;
        if opset >= 11 {
            let pads = node.constant("pads", Tensor::vector(pads));
            let mut inputs = node.operand_names();
            inputs.truncate(3);
            if let Some(p) = inputs.get_mut(1) {
                *p = pads;
            }
            while inputs.last().is_some_and(String::is_empty) {
                inputs.pop();
            }
            node.node("Pad", inputs, node.output_names(), attrs);
            return Ok(());
        }
        attrs.push(("pads", AttrValue::Ints(pads)));
        if let Some(o) = node.operand(2) {
            let value = o.constant.and_then(|c| c.to_tensor().ok()?.to_f64s()?.first().copied());
            let single = value.filter(|&v| f64::from(v as f32) == v || v.is_nan());
            let Some(v) = single else { return Err(node.refuse("a value that is not a constant of f32")) };
            attrs.push(("value", AttrValue::Float(v as f32)));
        }
        node.node("Pad", first_name(node), node.output_names(), attrs);
        Ok(())
    }

    fn properties(&self) -> Properties {
        match self.mode {
            PadMode::Constant => Properties::moves(Movement::Pads, Operands::Sets(&[&[0, 2]])),
            PadMode::Reflect | PadMode::Edge | PadMode::Wrap => Properties::moves(Movement::Picks, Operands::FIRST),
        }
    }
}

/// A float as a scalar of the type of `like`.
pub(super) fn scalar(node: &mut NodeReader<'_>, like: Value, v: f32) -> Result<Value, ImportError> {
    match node.fact_of(like).map(|f| f.dtype) {
        Some(d) if d.is_float() => node.add_constant(&Tensor::scalar(v).rounded_to(d)),
        Some(DType::Str) | None => Err(ImportError::Unsupported("a value for data of unknown type".into())),
        Some(to) => {
            let c = node.add_constant(&Tensor::scalar(v))?;
            let cast = node.add(Cast { to }, vec![Some(c)], 1)?;
            cast.first().copied().ok_or_else(|| ImportError::Unsupported("a value that cannot be converted".into()))
        }
    }
}

/// The constant pads of all axes.
fn all_pads(node: &NodeWriter<'_>) -> Result<Vec<i64>, ExportError> {
    let pads = node.constant_ints(1, "pads")?.unwrap_or_default();
    let Some(axes) = node.constant_ints(3, "axes")? else { return Ok(pads) };
    let Some(rank) = node.operand(0).and_then(|o| o.fact).map(convc_runtime::Fact::rank) else {
        return Err(node.refuse("axes of a tensor of unknown rank"));
    };
    let mut out = vec![0; 2 * rank];
    for (i, &a) in axes.iter().enumerate() {
        let at = usize::try_from(if a < 0 { a + rank as i64 } else { a }).ok().filter(|&a| a < rank);
        let (Some(a), Some(&begin), Some(&end)) = (at, pads.get(i), pads.get(axes.len() + i)) else {
            return Err(node.refuse("pads that do not fit their axes"));
        };
        (out[a], out[rank + a]) = (begin, end);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use convc_runtime::{DType, Fact, Tensor};

    use crate::ops::testing::{Arg, float, ints, read, read_args, string, write, write_all};

    #[test]
    fn pads_and_value_are_attributes_before_opset_11() {
        let x = Fact::fixed(DType::F32, &[2, 3]);
        let attrs = vec![ints("pads", &[0, 1, 0, 2]), float("value", 1.5)];
        let (graph, y) = read("Pad", 2, std::slice::from_ref(&x), attrs.clone(), 1).unwrap();
        assert_eq!(graph.fact(y[0]).and_then(Fact::fixed_shape), Some(vec![2, 6]));
        assert_eq!(write(&graph, y[0], 7).unwrap()[0].attrs, attrs);
        assert_eq!(write(&graph, y[0], 13).unwrap()[0].inputs.len(), 3);
        let plain = vec![ints("pads", &[0; 4]), string("mode", "edge"), float("value", 0.0)];
        let (graph, y) = read("Pad", 2, &[x], plain, 1).unwrap();
        assert_eq!(write(&graph, y[0], 11).unwrap()[0].inputs.len(), 2);
    }

    #[test]
    fn axes_are_spelled_out_before_opset_18() {
        let list = |v: &[i64]| Arg::Constant(Tensor::vector(v.to_vec()));
        let args = [Arg::Input(Fact::fixed(DType::F32, &[2, 3, 4])), list(&[1, 2]), Arg::Hole, list(&[-1])];
        let (graph, y) = read_args("Pad", 18, &args, vec![], 1).unwrap();
        assert_eq!(write(&graph, y[0], 18).unwrap()[0].inputs.len(), 4);
        let (nodes, constants) = write_all(&graph, y[0].node, 13).unwrap();
        assert_eq!((nodes[0].inputs.len(), &constants[0].1), (2, &Tensor::vector(vec![0i64, 0, 1, 0, 0, 2])));
        assert_eq!(write(&graph, y[0], 7).unwrap()[0].attrs, [ints("pads", &[0, 0, 1, 0, 0, 2])]);
        let (graph, y) = read_args("Pad", 19, &args, vec![string("mode", "wrap")], 1).unwrap();
        assert!(write(&graph, y[0], 18).is_err() && write(&graph, y[0], 19).is_ok());
        assert!(read_args("Pad", 18, &args, vec![string("mode", "odd")], 1).is_err());
    }
}
