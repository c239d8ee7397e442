//! Pad. Pads and value are attributes before opset 11; `axes` exists since opset 18, the mode `wrap` since 19.

use convc_runtime::{
    AttrValue, DType, Tensor,
    ops::{Cast, Pad, pad::PadMode},
};

use super::{ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator, reshape::first_name};
use crate::ir::Value;

impl OnnxOperator for Pad {
    const READS: &'static [&'static str] = &["Pad"];

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
