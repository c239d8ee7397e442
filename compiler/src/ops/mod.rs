//! The compiler's half of each operator: how it is read from ONNX and written back. One file per operator or family, one
//! line each in `operators!`. Differences between opsets live here and nowhere else: the IR knows only the newest form.

mod element_types;
mod functions;
pub mod newer_operators;
pub mod primitives;
pub mod properties;
mod reader;
mod sequence;
#[cfg(test)]
pub(crate) mod testing;
mod writer;

pub use element_types::{dtype_from_onnx, dtype_to_onnx};
pub use properties::Properties;
pub use reader::{ImportError, NodeReader};
pub use sequence::makes_sequence;
pub use writer::{ExportError, NodeWriter, Operand, WrittenNode};

use convc_runtime::{DType, Dim, Fact, Op, ops};

use crate::{ir::Value, rewrite::types::Types};

/// Reading and writing one type of operator.
pub trait OnnxOperator: ops::Operator {
    /// The domain of the names; empty for ONNX's own.
    const DOMAIN: &'static str = "";

    /// The ONNX names that [`OnnxOperator::from_onnx`] reads.
    const READS: &'static [&'static str];

    /// At which element types of its first output ONNX Runtime's CPU provider executes each of these names, and from which opset
    /// on; nothing for operators of another domain, which are written out. Filled by `tests/conformance/executed.py`.
    const EXECUTED: &'static [Executed];

    /// Adds to the graph what the node means, in the newest form, and returns its outputs.
    ///
    /// # Errors
    /// [`ImportError::Unsupported`] if convc cannot execute this node: it is then carried through as it is.
    /// [`ImportError::Invalid`] if the model breaks the specification.
    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError>;

    /// Writes this operator in the form of the writer's opset.
    ///
    /// # Errors
    /// If that opset cannot express it.
    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError>;

    /// What holds for this operator whatever its operands are.
    fn properties(&self) -> Properties;
}

/// Multiply-adds of one execution of `op`; see [`properties::MultiplyAdds`]. `None` if a size or an operand is not known.
#[must_use]
pub fn macs(op: &Op, inputs: &[Option<&Fact>], outputs: &[&Fact]) -> Option<Dim> {
    properties(op).multiply_adds.count(inputs, outputs)
}

/// An ONNX name, an opset, and the element types that are executed from it on.
pub type Executed = (&'static str, i64, Types);

/// [`OnnxOperator::from_onnx`] of some operator.
pub type Reader = fn(&mut NodeReader<'_>) -> Result<Vec<Value>, ImportError>;

/// The set of these element types.
macro_rules! types {
    ($($dtype:ident),*) => { $crate::rewrite::types::Types::of(&[$(convc_runtime::DType::$dtype),*]) };
}

macro_rules! operators {
    ($($module:ident: $($variant:ident),+;)*) => {
        $(mod $module;)*

        /// The reader of the operator `op_type` of `domain` (empty for ONNX's own), if convc executes it.
        #[must_use]
        pub fn reader(domain: &str, op_type: &str) -> Option<Reader> {
            $($(if <ops::$variant as OnnxOperator>::DOMAIN == domain
                && <ops::$variant as OnnxOperator>::READS.contains(&op_type)
            {
                return Some(<ops::$variant as OnnxOperator>::from_onnx);
            })+)*
            domain.is_empty().then(|| sequence::reader(op_type)).flatten()
        }

        /// The ONNX names of all operators that convc reads, sorted.
        #[must_use]
        pub fn readable() -> Vec<&'static str> {
            let mut names = [$($(<ops::$variant as OnnxOperator>::READS),+),*, &sequence::READS].concat();
            names.sort_unstable();
            names
        }

        /// Whether ONNX Runtime's CPU provider executes `op` with results of this type in a model of this opset.
        #[must_use]
        pub fn is_executed(op: &Op, dtype: DType, opset: i64) -> bool {
            match op { $($(Op::$variant(op) => {
                let executed = <ops::$variant as OnnxOperator>::EXECUTED;
                let here = |e: &Executed| e.0 == ops::Operator::name(op) && e.1 <= opset && e.2.contains(dtype);
                !<ops::$variant as OnnxOperator>::DOMAIN.is_empty() || executed.iter().any(here)
            })+)* }
        }

        /// Writes `op`; see [`OnnxOperator::to_onnx`].
        ///
        /// # Errors
        /// See [`OnnxOperator::to_onnx`].
        pub fn write(op: &Op, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
            match op { $($(Op::$variant(op) => op.to_onnx(node),)+)* }
        }

        /// See [`OnnxOperator::properties`].
        #[must_use]
        pub fn properties(op: &Op) -> Properties {
            match op { $($(Op::$variant(op) => op.properties(),)+)* }
        }
    };
}

operators! {
    conv: Conv;
    conv_transpose: ConvTranspose;
    max_pool: MaxPool;
    average_pool: AveragePool;
    lp_pool: LpPool;
    global_pool: GlobalPool;
    batch_norm: BatchNormalization;
    instance_norm: InstanceNormalization;
    group_norm: GroupNormalization;
    layer_norm: LayerNormalization, RMSNormalization;
    lrn: LRN;
    lp_normalization: LpNormalization;
    mean_variance_normalization: MeanVarianceNormalization;
    resize: Resize;
    unary: Unary;
    gelu: Gelu;
    predicate: Predicate;
    negation: Negation;
    binary: Binary;
    power: Pow;
    modulo: Mod;
    variadic: Variadic;
    bitwise: Bitwise;
    bit_shift: BitShift;
    compare: Compare;
    clip: Clip;
    reduce: Reduce;
    arg_extreme: ArgExtreme;
    cumulative: Cumulative;
    softmax: Softmax;
    matmul: MatMul;
    gemm: Gemm;
    einsum: Einsum;
    quantize: QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear;
    quantized_matmul: MatMulInteger, QLinearMatMul;
    loss: Loss;
    reshape: Reshape, Flatten, Squeeze, Unsqueeze, Identity;
    transpose: Transpose;
    concat: Concat;
    split: Split;
    slice: Slice;
    shape: Shape, Size;
    gather: Gather;
    cast: Cast;
    fill: ConstantOfShape, Range, EyeLike;
    expand: Expand, Tile;
    select: Where;
    pad: Pad;
    gather_elements: GatherElements, GatherND;
    scatter: ScatterElements, ScatterND, TensorScatter;
    depth_space: DepthToSpace, SpaceToDepth;
    one_hot: OneHot;
    trilu: Trilu;
    compress: NonZero, Compress;
    reverse_sequence: ReverseSequence;
    topk: TopK;
    unique: Unique;
    center_crop_pad: CenterCropPad;
    col2im: Col2Im;
    bit_cast: BitCast;
    systems: DOConv, MixedConv, GhostModule, SCConv, SplitAttention, Involution;
}
