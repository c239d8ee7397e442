//! Mean over windows. `ceil_mode` comes with opset 10, `dilations` with 19.

use convc_runtime::{AttrValue, ops::AveragePool};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    conv::{WindowAttrs, read_window},
    max_pool::{PoolAttrs, read_flag, read_kernel_shape},
    properties::{Effort, Properties},
};
use crate::ir::Value;

impl OnnxOperator for AveragePool {
    const READS: &'static [&'static str] = &["AveragePool"];
    const EXECUTED: &'static [super::Executed] = &[
        ("AveragePool", 7, types![F32, F16]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let x = node.required(0, "X")?;
        let kernel_shape = read_kernel_shape(node)?;
        let WindowAttrs { strides, pads, dilations, auto_pad } = read_window(node, &kernel_shape)?;
        let ceil_mode = read_flag(node, "ceil_mode")?;
        let count_include_pad = read_flag(node, "count_include_pad")?;
        let op = AveragePool { kernel_shape, strides, pads, dilations, auto_pad, ceil_mode, count_include_pad };
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
            dilations_since: 19,
        };
        let mut attrs = pool.write(node)?;
        if self.count_include_pad {
            attrs.push(("count_include_pad", AttrValue::Int(1)));
        }
        node.emit("AveragePool", attrs)
    }

    fn properties(&self) -> Properties {
        Properties { effort: Effort::window(&self.kernel_shape), ..Properties::averages() }
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{DType, Fact};

    use crate::ops::testing::{int, ints, read, write};

    #[test]
    fn there_and_back() {
        let x = Fact::fixed(DType::F32, &[1, 2, 9, 9]);
        let attrs = vec![
            ints("pads", &[1, 1, 1, 1]),
            ints("kernel_shape", &[2, 2]),
            int("ceil_mode", 1),
            int("count_include_pad", 1),
        ];
        let (graph, y) = read("AveragePool", 10, &[x], attrs.clone(), 1).unwrap();
        assert_eq!(write(&graph, y[0], 10).unwrap()[0].attrs, attrs);
        assert!(write(&graph, y[0], 9).unwrap_err().problem.contains("ceil_mode"));
    }
}
