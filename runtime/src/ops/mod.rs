//! The operators. Each has one file: its attributes, what follows from its inputs' types and shapes ([`Operator::infer`])
//! and a portable implementation ([`Operator::run`]). To add one, copy the file of a similar operator and add its line below.

use crate::{DType, Data, Dim, Fact, OpError, Real, Tensor, attrs::Attrs, kernels::Isa, sys::Pool};

mod check;
pub mod compose;
mod copy;
pub mod elementwise;
pub mod helpers;
pub mod integer;
mod known;
#[cfg(test)]
mod movement;
mod order;
mod planes;
#[cfg(test)]
pub(crate) mod testing;

/// What an operator may ask for while it infers.
pub struct InferCx<'a> {
    fresh: &'a mut dyn FnMut() -> Dim,
}

impl<'a> InferCx<'a> {
    /// A context whose [`InferCx::fresh`] calls `fresh`.
    pub fn new(fresh: &'a mut dyn FnMut() -> Dim) -> InferCx<'a> {
        InferCx { fresh }
    }

    /// A new symbol (at least 0) for a size that only the data decides.
    pub fn fresh(&mut self) -> Dim {
        (self.fresh)()
    }
}

/// What an operator may ask for while it runs.
#[derive(Clone, Copy)]
pub struct RunCx<'a> {
    /// What stands for floating-point numbers in this run.
    pub real: Real,
    /// The threads to use. Results never depend on their number.
    pub pool: &'a Pool,
    /// The instruction set to use. Results never depend on it.
    pub isa: Isa,
    /// The largest number of elements that one output may have.
    pub max_elements: usize,
}

/// One operator of the IR and of plans.
///
/// `infer` and `run` get the operands in the order of the ONNX specification of the operator's newest opset, a hole being
/// `None`; trailing holes may be left out. Neither panics, whatever the inputs hold.
pub trait Operator: Sized {
    /// The names this type answers to, ONNX names verbatim.
    const NAMES: &'static [&'static str];
    /// Which of [`Operator::NAMES`] this is.
    fn name(&self) -> &'static str;
    /// The attributes as a plain map.
    fn to_attrs(&self) -> Attrs;
    /// The operator `name` (one of [`Operator::NAMES`]) with the attributes taken out of `attrs`.
    ///
    /// # Errors
    /// If an attribute is missing or malformed.
    fn from_attrs(name: &str, attrs: &mut Attrs) -> Result<Self, OpError>;
    /// Types and shapes of the outputs.
    ///
    /// # Errors
    /// If the inputs do not fit the operator, whatever the symbols' values.
    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError>;
    /// The outputs.
    ///
    /// # Errors
    /// If the inputs do not fit the operator.
    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError>;
}

/// The naming half of [`Operator`] for a struct declared by `attributes!` with a field `kind` that is the name.
macro_rules! family {
    ($op:ident, $kind:ident) => {
        const NAMES: &'static [&'static str] = $kind::TEXTS;

        fn name(&self) -> &'static str {
            self.kind.text()
        }

        fn to_attrs(&self) -> $crate::attrs::Attrs {
            let mut attrs = $op::to_attrs(self);
            attrs.remove("kind");
            attrs
        }

        fn from_attrs(name: &str, attrs: &mut $crate::attrs::Attrs) -> Result<Self, $crate::OpError> {
            attrs.insert("kind".into(), $crate::AttrValue::Str(name.into()));
            $op::from_attrs(attrs)
        }
    };
}

/// The naming half of [`Operator`] for a struct declared by `attributes!` that answers to one name.
macro_rules! single {
    ($op:ident, $name:literal) => {
        const NAMES: &'static [&'static str] = &[$name];

        fn name(&self) -> &'static str {
            $name
        }

        fn to_attrs(&self) -> $crate::attrs::Attrs {
            $op::to_attrs(self)
        }

        fn from_attrs(_: &str, attrs: &mut $crate::attrs::Attrs) -> Result<Self, $crate::OpError> {
            $op::from_attrs(attrs)
        }
    };
}

macro_rules! operators {
    ($($module:ident: $($variant:ident),+;)*) => {
        $(pub mod $module;)*
        $(pub use $module::{$($variant),+};)*

        /// Any operator.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Op { $($(
            #[doc = concat!("[`", stringify!($module), "::", stringify!($variant), "`]")]
            $variant($module::$variant),
        )+)* }

        $($(impl From<$module::$variant> for Op {
            fn from(op: $module::$variant) -> Op {
                Op::$variant(op)
            }
        })+)*

        impl Op {
            /// The names of all operators, in the order of their lines.
            #[must_use]
            pub fn names() -> Vec<&'static str> {
                [$($(<$module::$variant as Operator>::NAMES),+),*].concat()
            }

            /// The ONNX name.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self { $($(Op::$variant(op) => op.name(),)+)* }
            }

            /// The attributes as a plain map.
            #[must_use]
            pub fn to_attrs(&self) -> Attrs {
                match self { $($(Op::$variant(op) => Operator::to_attrs(op),)+)* }
            }

            /// The operator `name` with these attributes.
            ///
            /// # Errors
            /// If there is no such operator, or an attribute is missing, malformed or unknown, or they do not go together.
            pub fn from_attrs(name: &str, mut attrs: Attrs) -> Result<Op, OpError> {
                let op = $($(if <$module::$variant as Operator>::NAMES.contains(&name) {
                    Op::$variant(<$module::$variant as Operator>::from_attrs(name, &mut attrs)?)
                } else)+)* {
                    return Err(OpError::Unsupported(format!("operator {name}")));
                };
                match attrs.keys().next() {
                    Some(k) => Err(OpError::Unsupported(format!("attribute {k} of {name}"))),
                    None => op.check(&[]).map(|()| op),
                }
            }

            /// See [`Operator::infer`].
            ///
            /// # Errors
            /// See [`Operator::infer`].
            pub fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
                match self { $($(Op::$variant(op) => op.infer(inputs, cx),)+)* }
            }

            /// See [`Operator::run`].
            ///
            /// # Errors
            /// See [`Operator::run`].
            pub fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
                match self { $($(Op::$variant(op) => op.run(inputs, cx),)+)* }
            }
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
    do_conv: DOConv;
    mixed_conv: MixedConv;
    ghost_module: GhostModule;
    sc_conv: SCConv;
    split_attention: SplitAttention;
    involution: Involution;
}

impl<'a> RunCx<'a> {
    /// A context that computes in `real` on `pool`, with the best instruction set of the machine and 2^31 elements a value.
    #[must_use]
    pub fn new(real: Real, pool: &'a Pool) -> RunCx<'a> {
        RunCx { real, pool, isa: Isa::detect(), max_elements: 1 << 31 }
    }

    /// The storage type that stands for `dtype` in this run.
    #[must_use]
    pub fn stored(&self, dtype: DType) -> DType {
        match self.real {
            Real::F64 if dtype.is_float() => DType::F64,
            _ => dtype,
        }
    }

    /// A tensor made by the operator itself (not from its inputs' elements), as this run stores it.
    #[must_use]
    pub fn made(&self, tensor: Tensor) -> Tensor {
        tensor.to_real(self.real)
    }

    /// The number of elements of `shape`, refused beyond [`RunCx::max_elements`].
    ///
    /// # Errors
    /// [`OpError::TooLarge`].
    pub fn count(&self, shape: &[usize]) -> Result<usize, OpError> {
        crate::dim::element_count(shape)
            .filter(|&n| n <= self.max_elements)
            .ok_or_else(|| OpError::TooLarge { shape: format!("{shape:?}"), limit: self.max_elements })
    }
}

/// Runs `op` on half-precision inputs by widening them to f32 and rounding each floating-point output once; on other
/// inputs as it is. For operators that accumulate.
///
/// # Errors
/// Those of `op`.
pub fn widened(
    inputs: &[Option<&Tensor>],
    op: impl FnOnce(&[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError>,
) -> Result<Vec<Tensor>, OpError> {
    let half = inputs.iter().flatten().find_map(|t| match t.data() {
        Data::F16(_) | Data::BF16(_) => Some(t.dtype()),
        _ => None,
    });
    let Some(dtype) = half else { return op(inputs) };
    let wide: Vec<Option<Tensor>> = inputs
        .iter()
        .map(|t| t.map(|t| if t.dtype() == dtype { t.rounded_to(DType::F32) } else { t.clone() }))
        .collect();
    let refs: Vec<Option<&Tensor>> = wide.iter().map(Option::as_ref).collect();
    Ok(op(&refs)?.iter().map(|t| if t.dtype() == DType::F32 { t.rounded_to(dtype) } else { t.clone() }).collect())
}
