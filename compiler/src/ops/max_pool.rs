//! Maximum over windows. `storage_order` and the second output come with opset 8, `ceil_mode` and `dilations` with 10,
//! 8-bit integers with 12.

use convc_runtime::{AttrValue, ops::MaxPool, window::AutoPad};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    conv::{WindowAttrs, read_window, write_window},
    properties::{Effort, Properties},
};
use crate::ir::Value;

/// Takes `kernel_shape` out, which every pool requires.
pub(super) fn read_kernel_shape(node: &mut NodeReader<'_>) -> Result<Vec<i64>, ImportError> {
    node.ints("kernel_shape")?
        .ok_or_else(|| ImportError::Invalid(format!("attribute kernel_shape of {} is missing", node.op_type())))
}

/// Takes an attribute out that is 0 or 1, 0 if it is not given.
pub(super) fn read_flag(node: &mut NodeReader<'_>, name: &'static str) -> Result<bool, ImportError> {
    match node.int(name)?.unwrap_or(0) {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(ImportError::Invalid(format!("attribute {name} is {other}, which is neither 0 nor 1"))),
    }
}

/// The attributes that all pools share; `dilations` and `ceil_mode` are refused before the opsets that introduce them.
pub(super) struct PoolAttrs<'a> {
    pub(super) kernel_shape: &'a [i64],
    pub(super) strides: &'a [i64],
    pub(super) pads: &'a [i64],
    pub(super) dilations: &'a [i64],
    pub(super) auto_pad: AutoPad,
    pub(super) ceil_mode: bool,
    pub(super) ceil_since: i64,
    pub(super) dilations_since: i64,
}

impl PoolAttrs<'_> {
    /// As ONNX attributes, with the defaults left out.
    pub(super) fn write(&self, node: &NodeWriter<'_>) -> Result<Vec<(&'static str, AttrValue)>, ExportError> {
        if node.opset() < self.dilations_since && self.dilations.iter().any(|&d| d != 1) {
            return Err(node.refuse(format!("dilations {:?} need opset {}", self.dilations, self.dilations_since)));
        }
        let mut attrs = write_window(self.strides, self.pads, self.dilations, self.auto_pad);
        attrs.push(("kernel_shape", AttrValue::Ints(self.kernel_shape.to_vec())));
        if self.ceil_mode {
            if node.opset() < self.ceil_since {
                return Err(node.refuse(format!("ceil_mode needs opset {}", self.ceil_since)));
            }
            attrs.push(("ceil_mode", AttrValue::Int(1)));
        }
        Ok(attrs)
    }
}

impl OnnxOperator for MaxPool {
    const READS: &'static [&'static str] = &["MaxPool"];
    const EXECUTED: &'static [super::Executed] = &[
        ("MaxPool", 1, types![F32, F16]),
        ("MaxPool", 8, types![F64]),
        ("MaxPool", 12, types![I8, U8]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let x = node.required(0, "X")?;
        let kernel_shape = read_kernel_shape(node)?;
        let WindowAttrs { strides, pads, dilations, auto_pad } = read_window(node, &kernel_shape)?;
        let ceil_mode = read_flag(node, "ceil_mode")?;
        let column_major = read_flag(node, "storage_order")?;
        let indices = node.has_output(1);
        let column_major = column_major && indices;
        let op = MaxPool { kernel_shape, strides, pads, dilations, auto_pad, ceil_mode, indices, column_major };
        node.emit(op, vec![Some(x)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        let pool = PoolAttrs {
            kernel_shape: &self.kernel_shape,
            strides: &self.strides,
            pads: &self.pads,
            dilations: &self.dilations,
            auto_pad: self.auto_pad,
            ceil_mode: self.ceil_mode,
            ceil_since: 10,
            dilations_since: 10,
        };
        let mut attrs = pool.write(node)?;
        if self.indices && node.opset() < 8 {
            return Err(node.refuse("its second output needs opset 8"));
        }
        if self.column_major {
            attrs.push(("storage_order", AttrValue::Int(1)));
        }
        node.emit("MaxPool", attrs)
    }

    fn properties(&self) -> Properties {
        // A window that lies in the padding alone has the least number of all for its maximum, whatever the map holds.
        Properties {
            monotone: true,
            jumps: self.indices,
            effort: Effort::window(&self.kernel_shape),
            ..Properties::continuous()
        }
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{DType, Fact};

    use crate::ops::testing::{ints, read, string, write};

    #[test]
    fn there_and_back() {
        let x = Fact::fixed(DType::F32, &[1, 2, 9, 9]);
        let attrs = vec![ints("kernel_shape", &[3, 2]), ints("strides", &[2, 1]), ints("pads", &[1, 0, 1, 1])];
        for opset in [7, 8, 12, 22] {
            let (graph, y) = read("MaxPool", opset, std::slice::from_ref(&x), attrs.clone(), 1).unwrap();
            assert_eq!(graph.fact(y[0]).unwrap().to_string(), "f32[1, 2, 5, 9]");
            let nodes = write(&graph, y[0], opset).unwrap();
            let again = nodes[0].attrs.clone();
            assert_eq!(again.len(), 3);
            let (same, z) = read("MaxPool", opset, std::slice::from_ref(&x), again, 1).unwrap();
            assert_eq!(same.node(z[0].node).op(), graph.node(y[0].node).op());
        }
    }

    #[test]
    fn padding_becomes_explicit() {
        let x = Fact::fixed(DType::F32, &[1, 2, 9, 8]);
        let attrs = vec![ints("kernel_shape", &[2, 3]), ints("strides", &[2, 2]), string("auto_pad", "SAME_LOWER")];
        let (graph, y) = read("MaxPool", 11, &[x], attrs, 2).unwrap();
        assert_eq!(graph.fact(y[1]).unwrap().to_string(), "i64[1, 2, 5, 4]");
        let nodes = write(&graph, y[0], 11).unwrap();
        assert!(nodes[0].attrs.contains(&ints("pads", &[1, 1, 0, 0])), "{:?}", nodes[0].attrs);
        assert_eq!(nodes[0].outputs.len(), 2);
        assert!(write(&graph, y[0], 7).unwrap_err().problem.contains("opset 8"));
    }
}
