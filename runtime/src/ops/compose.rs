//! Operators that are defined by others. Each writes its definition once, for any [`Composer`]: carried out on tensors it is
//! the operator's `run`, written into a graph it is its spelling in ONNX's own operators.

use crate::{
    DType, Fact, Op, OpError, Tensor,
    ops::{
        AveragePool, Binary, Concat, Conv, GlobalPool, MatMul, Reduce, Reshape, RunCx, Unary, binary::BinaryKind,
        global_pool::GlobalPoolKind, reduce::ReduceKind, unary::UnaryKind,
    },
    window::AutoPad,
};

/// Something that operators can be applied in.
pub trait Composer {
    /// What operators take and give.
    type Value: Clone;
    /// Why an operator could not be applied.
    type Error: From<OpError>;

    /// The `outputs` results of `op`.
    ///
    /// # Errors
    /// If the operands do not fit.
    fn apply(
        &mut self,
        op: Op,
        operands: Vec<Option<Self::Value>>,
        outputs: usize,
    ) -> Result<Vec<Self::Value>, Self::Error>;

    /// A constant. Floating-point elements stand for those of the model's type.
    ///
    /// # Errors
    /// If the tensor cannot be stored.
    fn constant(&mut self, tensor: Tensor) -> Result<Self::Value, Self::Error>;

    /// What is known of a value.
    fn fact(&self, value: &Self::Value) -> Option<Fact>;
}

/// Carries operators out.
pub(crate) struct Evaluate<'a>(pub(crate) &'a RunCx<'a>);

impl Composer for Evaluate<'_> {
    type Value = Tensor;
    type Error = OpError;

    fn apply(&mut self, op: Op, operands: Vec<Option<Tensor>>, _: usize) -> Result<Vec<Tensor>, OpError> {
        let operands: Vec<Option<&Tensor>> = operands.iter().map(Option::as_ref).collect();
        op.run(&operands, self.0)
    }

    fn constant(&mut self, tensor: Tensor) -> Result<Tensor, OpError> {
        Ok(self.0.made(tensor))
    }

    fn fact(&self, value: &Tensor) -> Option<Fact> {
        Some(Fact::fixed(value.dtype(), value.shape()))
    }
}

/// A convolution with explicit padding.
pub(crate) fn convolution(strides: &[i64], pads: &[i64], dilations: &[i64], group: i64) -> Conv {
    Conv {
        strides: strides.to_vec(),
        pads: pads.to_vec(),
        dilations: dilations.to_vec(),
        group,
        auto_pad: AutoPad::NotSet,
    }
}

/// Shorthands for the operators that definitions use.
pub(crate) trait Compose: Composer {
    /// The one result of `op`.
    fn one(&mut self, op: impl Into<Op>, operands: Vec<Option<Self::Value>>) -> Result<Self::Value, Self::Error> {
        let first = self.apply(op.into(), operands, 1)?.into_iter().next();
        first.ok_or_else(|| OpError::Unsupported("an operator without a result".into()).into())
    }

    /// The operand at `index`.
    fn given(operands: &[Option<Self::Value>], index: usize, name: &'static str) -> Result<Self::Value, Self::Error> {
        operands.get(index).cloned().flatten().ok_or_else(|| OpError::MissingInput { index, name }.into())
    }

    /// A list of integers.
    fn ints(&mut self, v: &[i64]) -> Result<Self::Value, Self::Error> {
        self.constant(Tensor::vector(v.to_vec()))
    }

    /// Convolution of x with w and b.
    fn conv(
        &mut self,
        op: Conv,
        x: &Self::Value,
        w: &Self::Value,
        b: Option<&Self::Value>,
    ) -> Result<Self::Value, Self::Error> {
        self.one(op, vec![Some(x.clone()), Some(w.clone()), b.cloned()])
    }

    /// A function of one argument.
    fn unary(&mut self, kind: UnaryKind, x: &Self::Value) -> Result<Self::Value, Self::Error> {
        self.one(Unary::new(kind), vec![Some(x.clone())])
    }

    /// A function of two arguments.
    fn binary(&mut self, kind: BinaryKind, a: &Self::Value, b: &Self::Value) -> Result<Self::Value, Self::Error> {
        self.one(Binary::new(kind), vec![Some(a.clone()), Some(b.clone())])
    }

    /// The sum, in order.
    fn sum(&mut self, values: &[Self::Value]) -> Result<Self::Value, Self::Error> {
        let (first, rest) = values.split_first().ok_or_else(|| OpError::Unsupported("a sum of nothing".into()))?;
        rest.iter().try_fold(first.clone(), |sum, v| self.binary(BinaryKind::Add, &sum, v))
    }

    /// The same elements in another shape; 0 stands for the size at the same position.
    fn reshape(&mut self, x: &Self::Value, shape: &[i64]) -> Result<Self::Value, Self::Error> {
        let shape = self.ints(shape)?;
        self.one(Reshape { allowzero: false }, vec![Some(x.clone()), Some(shape)])
    }

    /// A matrix product.
    fn matmul(&mut self, a: &Self::Value, b: &Self::Value) -> Result<Self::Value, Self::Error> {
        self.one(MatMul {}, vec![Some(a.clone()), Some(b.clone())])
    }

    /// The values one behind the other along `axis`.
    fn concat(&mut self, values: &[Self::Value], axis: i64) -> Result<Self::Value, Self::Error> {
        self.one(Concat { axis }, values.iter().cloned().map(Some).collect())
    }

    /// The sum along one axis, which disappears.
    fn sum_along(&mut self, x: &Self::Value, axis: i64) -> Result<Self::Value, Self::Error> {
        let axes = self.ints(&[axis])?;
        let op = Reduce { kind: ReduceKind::ReduceSum, keepdims: false, noop_with_empty_axes: false };
        self.one(op, vec![Some(x.clone()), Some(axes)])
    }

    /// The mean of each plane.
    fn global_average(&mut self, x: &Self::Value) -> Result<Self::Value, Self::Error> {
        self.one(GlobalPool { kind: GlobalPoolKind::Average, p: None }, vec![Some(x.clone())])
    }

    /// The mean of each r×..×r tile.
    fn tile_average(&mut self, x: &Self::Value, r: i64, spatial: usize) -> Result<Self::Value, Self::Error> {
        let op = AveragePool {
            kernel_shape: vec![r; spatial],
            strides: vec![r; spatial],
            pads: vec![0; 2 * spatial],
            dilations: vec![1; spatial],
            auto_pad: AutoPad::NotSet,
            ceil_mode: false,
            count_include_pad: false,
        };
        self.one(op, vec![Some(x.clone())])
    }

    /// The sizes of a value, of which `what` needs those that are asked for.
    fn sizes(&self, x: &Self::Value, what: &str) -> Result<Sizes, Self::Error> {
        let fact = self.fact(x).ok_or_else(|| OpError::Unsupported(format!("{what} of unknown shape")))?;
        Ok(Sizes { fact, what: what.to_owned() })
    }
}

impl<C: Composer> Compose for C {}

/// What is known of a value's sizes.
pub(crate) struct Sizes {
    pub(crate) fact: Fact,
    what: String,
}

impl Sizes {
    /// The size of an axis.
    pub(crate) fn at(&self, axis: usize) -> Result<i64, OpError> {
        let size = self.fact.shape.get(axis).and_then(crate::Dim::as_fixed);
        size.ok_or_else(|| OpError::Unsupported(format!("{} with an axis {axis} of unknown size", self.what)))
    }

    /// Number of axes behind the first two.
    pub(crate) fn spatial(&self) -> usize {
        self.fact.rank().saturating_sub(2)
    }

    /// The element type.
    pub(crate) fn dtype(&self) -> DType {
        self.fact.dtype
    }
}

/// Carries out a definition that gives one result.
pub(crate) fn evaluate<'a>(
    inputs: &[Option<&Tensor>],
    cx: &'a RunCx<'a>,
    define: impl FnOnce(&mut Evaluate<'a>, &[Option<Tensor>]) -> Result<Tensor, OpError>,
) -> Result<Vec<Tensor>, OpError> {
    let operands: Vec<Option<Tensor>> = inputs.iter().map(|t| t.cloned()).collect();
    Ok(vec![define(&mut Evaluate(cx), &operands)?])
}
