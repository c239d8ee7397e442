//! Norm over windows. `ceil_mode` and `dilations` come with opset 18.

use convc_runtime::{AttrValue, ops::LpPool};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    conv::{WindowAttrs, read_window},
    max_pool::{PoolAttrs, read_flag, read_kernel_shape},
    properties::{Effort, Nonnegative, Operands, Properties},
};
use crate::ir::Value;

impl OnnxOperator for LpPool {
    const READS: &'static [&'static str] = &["LpPool"];
    const EXECUTED: &'static [super::Executed] = &[
        ("LpPool", 2, types![F32, F16]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let x = node.required(0, "X")?;
        let kernel_shape = read_kernel_shape(node)?;
        let WindowAttrs { strides, pads, dilations, auto_pad } = read_window(node, &kernel_shape)?;
        let ceil_mode = read_flag(node, "ceil_mode")?;
        let p = node.int("p")?.unwrap_or(2);
        node.emit(LpPool { kernel_shape, strides, pads, dilations, auto_pad, ceil_mode, p }, vec![Some(x)])
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        let pool = PoolAttrs {
            kernel_shape: &self.kernel_shape,
            strides: &self.strides,
            pads: &self.pads,
            dilations: &self.dilations,
            auto_pad: self.auto_pad,
            ceil_mode: self.ceil_mode,
            ceil_since: 18,
            dilations_since: 18,
        };
        let mut attrs = pool.write(node)?;
        if self.p != 2 {
            attrs.push(("p", AttrValue::Int(self.p)));
        }
        node.emit("LpPool", attrs)
    }

    fn properties(&self) -> Properties {
        Properties {
            zeros: Operands::FIRST,
            nonnegative: Nonnegative::Always,
            effort: Effort::window(&self.kernel_shape),
            ..Properties::continuous()
        }
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::{DType, Fact};

    use crate::ops::testing::{int, ints, read, write};

    #[test]
    fn there_and_back() {
        let x = Fact::fixed(DType::F32, &[1, 2, 9]);
        let attrs = vec![ints("dilations", &[2]), ints("kernel_shape", &[2]), int("p", 3)];
        let (graph, y) = read("LpPool", 18, &[x], attrs.clone(), 1).unwrap();
        assert_eq!(write(&graph, y[0], 18).unwrap()[0].attrs, attrs);
        assert!(write(&graph, y[0], 11).unwrap_err().problem.contains("dilations"));
    }
}
