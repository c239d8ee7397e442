//! Convolution. Opsets 1 to 22 differ in element types only.

use convc_runtime::{
    AttrValue, Fact,
    ops::Conv,
    window::{AutoPad, Window},
};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    properties::{MultiplyAdds, Operands, Properties},
};
use crate::ir::Value;

/// The window attributes that Conv, ConvTranspose and the pools share.
pub(super) struct WindowAttrs {
    pub(super) strides: Vec<i64>,
    pub(super) pads: Vec<i64>,
    pub(super) dilations: Vec<i64>,
    pub(super) auto_pad: AutoPad,
}

/// Reads `auto_pad`, `pads`, `strides`, `dilations` as Conv and the pools share them. Padding becomes explicit where the
/// input's size does not matter or is known.
pub(super) fn read_window(node: &mut NodeReader<'_>, kernel: &[i64]) -> Result<WindowAttrs, ImportError> {
    let n = kernel.len();
    let strides = node.ints("strides")?.unwrap_or_else(|| vec![1; n]);
    let dilations = node.ints("dilations")?.unwrap_or_else(|| vec![1; n]);
    let explicit = node.ints("pads")?;
    let auto = node.string("auto_pad")?.unwrap_or_else(|| "NOTSET".into());
    let mut attrs = WindowAttrs { strides, pads: vec![0; 2 * n], dilations, auto_pad: AutoPad::NotSet };
    match auto.as_str() {
        "NOTSET" => {
            attrs.pads = explicit.unwrap_or(attrs.pads);
            return Ok(attrs);
        }
        "VALID" => return Ok(attrs),
        other => {
            attrs.auto_pad = AutoPad::from_text(other).ok_or_else(|| {
                ImportError::Invalid(format!("attribute auto_pad is {other:?}, which is not a way to pad"))
            })?;
            attrs.pads = Vec::new();
        }
    }
    let window = Window {
        kernel,
        strides: &attrs.strides,
        pads: &[],
        dilations: &attrs.dilations,
        auto_pad: attrs.auto_pad,
        ceil_mode: false,
        may_be_empty: false,
    };
    window.check()?;
    let sizes = node.fact(0).and_then(Fact::fixed_shape).filter(|s| s.len() == n + 2);
    let unit = attrs.strides.iter().all(|&s| s == 1);
    // With stride 1 the padding is the kernel's extent less one for any size.
    if let Some(sizes) = sizes.or_else(|| unit.then(|| vec![1; n + 2])) {
        let axes = window.resolve(&sizes[2..])?;
        attrs.pads = axes.iter().map(|a| a.pad_begin).chain(axes.iter().map(|a| a.pad_end)).collect();
        attrs.auto_pad = AutoPad::NotSet;
    }
    Ok(attrs)
}

/// The attributes that [`read_window`] reads, with ONNX's defaults left out.
pub(super) fn write_window(
    strides: &[i64],
    pads: &[i64],
    dilations: &[i64],
    auto_pad: AutoPad,
) -> Vec<(&'static str, AttrValue)> {
    let mut attrs = Vec::new();
    if dilations.iter().any(|&d| d != 1) {
        attrs.push(("dilations", AttrValue::Ints(dilations.to_vec())));
    }
    match auto_pad {
        AutoPad::NotSet if pads.iter().any(|&p| p != 0) => attrs.push(("pads", AttrValue::Ints(pads.to_vec()))),
        AutoPad::NotSet => {}
        auto => attrs.push(("auto_pad", AttrValue::Str(auto.text().into()))),
    }
    if strides.iter().any(|&s| s != 1) {
        attrs.push(("strides", AttrValue::Ints(strides.to_vec())));
    }
    attrs
}

/// The kernel's spatial sizes: those of the weights, which `kernel_shape` must repeat if it is given.
pub(super) fn read_kernel(node: &mut NodeReader<'_>) -> Result<Vec<i64>, ImportError> {
    let stated = node.ints("kernel_shape")?;
    let actual = match node.fact(1) {
        Some(w) => w.shape.iter().skip(2).map(convc_runtime::Dim::as_fixed).collect::<Option<Vec<i64>>>(),
        None => None,
    };
    match (stated, actual) {
        (Some(s), Some(a)) if s != a => {
            Err(ImportError::Invalid(format!("attribute kernel_shape is {s:?}, but the weights have {a:?}")))
        }
        (_, Some(a)) => Ok(a),
        (Some(s), None) => Ok(s),
        (None, None) => Err(ImportError::Unsupported("a kernel of unknown size".into())),
    }
}

impl OnnxOperator for Conv {
    const READS: &'static [&'static str] = &["Conv"];
    const EXECUTED: &'static [super::Executed] = &[
        ("Conv", 1, types![F32, F16]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let (x, w) = (node.required(0, "X")?, node.required(1, "W")?);
        let kernel = read_kernel(node)?;
        let WindowAttrs { strides, pads, dilations, auto_pad } = read_window(node, &kernel)?;
        let group = node.int("group")?.unwrap_or(1);
        let bias = node.operand(2);
        node.emit(Conv { strides, pads, dilations, group, auto_pad }, vec![Some(x), Some(w), bias])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        let mut attrs = write_window(&self.strides, &self.pads, &self.dilations, self.auto_pad);
        if self.group != 1 {
            attrs.push(("group", AttrValue::Int(self.group)));
        }
        if let Some(kernel) = node.operand(1).and_then(|w| w.fact?.fixed_shape()) {
            attrs.push(("kernel_shape", AttrValue::Ints(kernel.iter().skip(2).map(|&k| k as i64).collect())));
        }
        node.emit("Conv", attrs)
    }

    fn properties(&self) -> Properties {
        Properties {
            multiply_adds: MultiplyAdds::EachResult { rows: 1 },
            ..Properties::linear(Operands::Sets(&[&[0, 2], &[1, 2]]))
        }
    }
}
