//! Transposed convolution. Opsets 1 to 22 differ in element types only.

use convc_runtime::{AttrValue, Fact, ops::ConvTranspose, window::AutoPad};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    conv::{read_kernel, write_window},
    properties::{MultiplyAdds, Operands, Properties},
};
use crate::ir::Value;

/// Makes the padding explicit where the input's size does not matter or is known.
fn explicit_padding(op: &mut ConvTranspose, kernel: &[i64], input: Option<&[usize]>) {
    let Some(input) = input else { return };
    let (mut pads, mut output_padding) = (vec![0; 2 * kernel.len()], op.output_padding.clone());
    for (a, (begin, end)) in op.cut(kernel, input).into_iter().enumerate() {
        pads[a] = begin;
        pads[kernel.len() + a] = end.max(0);
        output_padding[a] -= end.min(0);
    }
    let resolved =
        ConvTranspose { pads, output_padding, output_shape: Vec::new(), auto_pad: AutoPad::NotSet, ..op.clone() };
    if resolved.check(kernel).is_ok() {
        *op = resolved;
    }
}

impl OnnxOperator for ConvTranspose {
    const READS: &'static [&'static str] = &["ConvTranspose"];
    const EXECUTED: &'static [super::Executed] = &[
        ("ConvTranspose", 1, types![F32, F16]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let (x, w) = (node.required(0, "X")?, node.required(1, "W")?);
        let kernel = read_kernel(node)?;
        let n = kernel.len();
        let auto = node.string("auto_pad")?.unwrap_or_else(|| "NOTSET".into());
        let auto_pad = match auto.as_str() {
            "VALID" => AutoPad::NotSet,
            other => AutoPad::from_text(other).ok_or_else(|| {
                ImportError::Invalid(format!("attribute auto_pad is {other:?}, which is not a way to pad"))
            })?,
        };
        let pads = node.ints("pads")?.unwrap_or_else(|| vec![0; 2 * n]);
        let mut op = ConvTranspose {
            strides: node.ints("strides")?.unwrap_or_else(|| vec![1; n]),
            pads: Vec::new(),
            dilations: node.ints("dilations")?.unwrap_or_else(|| vec![1; n]),
            group: node.int("group")?.unwrap_or(1),
            output_padding: node.ints("output_padding")?.unwrap_or_else(|| vec![0; n]),
            output_shape: node.ints("output_shape")?.unwrap_or_default(),
            auto_pad,
        };
        if !op.output_shape.is_empty() {
            op.check(&kernel)?;
            let sizes = node.fact(0).and_then(Fact::fixed_shape).filter(|s| s.len() == n + 2);
            explicit_padding(&mut op, &kernel, sizes.as_deref().map(|s| &s[2..]));
        } else if auto == "NOTSET" {
            op.pads = pads;
        } else {
            op.pads = vec![0; 2 * n];
            op.auto_pad = AutoPad::NotSet;
            op.check(&kernel)?;
            if auto_pad != AutoPad::NotSet {
                // What exceeds one stride an input is cut off, whatever the number of inputs.
                for (a, &taps) in kernel.iter().enumerate() {
                    let extent = op.dilations[a] * (taps - 1) + 1;
                    let total = (extent + op.output_padding[a] - op.strides[a]).max(0);
                    let begin = if auto_pad == AutoPad::SameUpper { total / 2 } else { (total + 1) / 2 };
                    op.pads[a] = begin;
                    op.pads[n + a] = total - begin;
                }
            }
        }
        let bias = node.operand(2);
        node.emit(op, vec![Some(x), Some(w), bias])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        let mut attrs = write_window(&self.strides, &self.pads, &self.dilations, self.auto_pad);
        if self.group != 1 {
            attrs.push(("group", AttrValue::Int(self.group)));
        }
        if let Some(kernel) = node.operand(1).and_then(|w| w.fact?.fixed_shape()) {
            attrs.push(("kernel_shape", AttrValue::Ints(kernel.iter().skip(2).map(|&k| k as i64).collect())));
        }
        if self.output_padding.iter().any(|&p| p != 0) {
            attrs.push(("output_padding", AttrValue::Ints(self.output_padding.clone())));
        }
        if !self.output_shape.is_empty() {
            attrs.push(("output_shape", AttrValue::Ints(self.output_shape.clone())));
        }
        node.emit("ConvTranspose", attrs)
    }

    fn properties(&self) -> Properties {
        Properties {
            multiply_adds: MultiplyAdds::EachInput { rows: 1 },
            ..Properties::linear(Operands::Sets(&[&[0, 2], &[1, 2]]))
        }
    }
}
