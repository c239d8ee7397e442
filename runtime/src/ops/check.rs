//! What must hold of an operator's attributes whatever its operands are, so that nobody who reads them has to doubt them.

use super::{Op, lp_pool::check_exponent};
use crate::{Fact, OpError, window::AutoPad};

/// The lists of a sliding window over n spatial axes.
struct Lists<'a> {
    kernel: Option<&'a [i64]>,
    strides: &'a [i64],
    dilations: &'a [i64],
    pads: &'a [i64],
    /// Whether there are pads.
    padded: bool,
}

fn wrong(name: &'static str, problem: String) -> OpError {
    OpError::Attribute { name, problem }
}

fn positive(name: &'static str, value: i64) -> Result<(), OpError> {
    let fits = (1..=i64::from(i32::MAX)).contains(&value);
    if fits { Ok(()) } else { Err(wrong(name, format!("{value} is not a positive 32-bit number"))) }
}

fn list(name: &'static str, values: &[i64], n: usize) -> Result<(), OpError> {
    if values.len() != n {
        return Err(wrong(name, format!("{values:?} has {} entries, {n} are needed", values.len())));
    }
    values.iter().try_for_each(|v| positive(name, *v))
}

fn padding(name: &'static str, values: &[i64], n: usize) -> Result<(), OpError> {
    if values.len() != n {
        return Err(wrong(name, format!("{values:?} has {} entries, {n} are needed", values.len())));
    }
    match values.iter().find(|p| i32::try_from(**p).is_err()) {
        Some(p) => Err(wrong(name, format!("{p} is not a 32-bit number"))),
        None => Ok(()),
    }
}

impl Lists<'_> {
    fn check(&self) -> Result<(), OpError> {
        let n = self.kernel.map_or(self.strides.len(), <[i64]>::len);
        if n == 0 {
            return Err(wrong("strides", "there is no spatial axis".into()));
        }
        self.kernel.map_or(Ok(()), |k| list("kernel_shape", k, n))?;
        list("strides", self.strides, n)?;
        list("dilations", self.dilations, n)?;
        padding("pads", self.pads, if self.padded { 2 * n } else { 0 })
    }
}

/// An operand that holds a kernel has `n` spatial axes behind `leading` others.
fn kernel_rank(operands: &[Option<&Fact>], index: usize, name: &'static str, rank: usize) -> Result<(), OpError> {
    match operands.get(index).copied().flatten() {
        Some(f) if f.rank() != rank => Err(OpError::InputShape {
            index,
            name,
            shape: crate::fact::Shape(&f.shape).to_string(),
            expected: format!("{rank} dimensions are needed"),
        }),
        _ => Ok(()),
    }
}

impl Op {
    /// Checks the attributes, and that the operands whose facts are known have the ranks that they ask for. [`Op::infer`] checks
    /// more, where the facts of all operands are known.
    ///
    /// # Errors
    /// [`OpError::Attribute`] or [`OpError::InputShape`].
    #[allow(clippy::too_many_lines)]
    pub fn check(&self, operands: &[Option<&Fact>]) -> Result<(), OpError> {
        let window = |kernel, strides, dilations, pads, auto_pad: AutoPad| {
            Lists { kernel, strides, dilations, pads, padded: auto_pad == AutoPad::NotSet }.check()
        };
        match self {
            Op::Conv(o) => {
                window(None, &o.strides, &o.dilations, &o.pads, o.auto_pad)?;
                positive("group", o.group)?;
                kernel_rank(operands, 0, "X", o.strides.len() + 2)?;
                kernel_rank(operands, 1, "W", o.strides.len() + 2)
            }
            Op::ConvTranspose(o) => {
                let n = o.strides.len();
                let by_shape = !o.output_shape.is_empty();
                Lists { kernel: None, strides: &o.strides, dilations: &o.dilations, pads: &o.pads, padded: !by_shape }
                    .check()?;
                padding("output_padding", &o.output_padding, n)?;
                if by_shape {
                    padding("output_shape", &o.output_shape, n)?;
                }
                positive("group", o.group)?;
                kernel_rank(operands, 0, "X", n + 2)?;
                kernel_rank(operands, 1, "W", n + 2)
            }
            Op::MaxPool(o) => {
                window(Some(&o.kernel_shape), &o.strides, &o.dilations, &o.pads, o.auto_pad)?;
                kernel_rank(operands, 0, "X", o.strides.len() + 2)
            }
            Op::AveragePool(o) => {
                window(Some(&o.kernel_shape), &o.strides, &o.dilations, &o.pads, o.auto_pad)?;
                kernel_rank(operands, 0, "X", o.strides.len() + 2)
            }
            Op::LpPool(o) => {
                window(Some(&o.kernel_shape), &o.strides, &o.dilations, &o.pads, o.auto_pad)?;
                check_exponent(o.p)?;
                kernel_rank(operands, 0, "X", o.strides.len() + 2)
            }
            Op::DOConv(o) => {
                window(Some(&o.kernel_shape), &o.strides, &o.dilations, &o.pads, AutoPad::NotSet)?;
                positive("group", o.group)?;
                kernel_rank(operands, 0, "X", o.strides.len() + 2)
            }
            Op::MixedConv(o) => {
                window(None, &o.strides, &o.dilations, &o.pads, AutoPad::NotSet)?;
                positive("group", o.group)?;
                kernel_rank(operands, 0, "X", o.strides.len() + 2)?;
                kernel_rank(operands, 2, "W", o.strides.len() + 3)
            }
            Op::GhostModule(o) => {
                window(None, &o.strides, &o.dilations, &o.pads, AutoPad::NotSet)?;
                list("cheap_dilations", &o.cheap_dilations, o.strides.len())?;
                padding("cheap_pads", &o.cheap_pads, 2 * o.strides.len())?;
                positive("group", o.group)?;
                positive("out_channels", o.out_channels)?;
                kernel_rank(operands, 0, "X", o.strides.len() + 2)?;
                kernel_rank(operands, 1, "W", o.strides.len() + 2)
            }
            Op::SCConv(o) => {
                window(None, &o.strides, &o.dilations, &o.pads, AutoPad::NotSet)?;
                positive("group", o.group)?;
                positive("pool_size", o.pool_size)?;
                kernel_rank(operands, 0, "X", o.strides.len() + 2)
            }
            Op::SplitAttention(o) => {
                window(None, &o.strides, &o.dilations, &o.pads, AutoPad::NotSet)?;
                positive("group", o.group)?;
                positive("radix", o.radix)?;
                positive("cardinality", o.cardinality)?;
                kernel_rank(operands, 0, "X", o.strides.len() + 2)
            }
            Op::Involution(o) => {
                window(Some(&o.kernel_shape), &o.strides, &o.dilations, &o.pads, AutoPad::NotSet)?;
                positive("group", o.group)?;
                kernel_rank(operands, 0, "X", o.strides.len() + 2)
            }
            Op::Transpose(o) => {
                let mut sorted = o.perm.clone();
                sorted.sort_unstable();
                if sorted.iter().zip(0..).any(|(p, i)| *p != i) {
                    return Err(wrong("perm", format!("{:?} is not a permutation", o.perm)));
                }
                kernel_rank(operands, 0, "data", o.perm.len())
            }
            Op::DepthToSpace(o) => positive("blocksize", o.blocksize),
            Op::SpaceToDepth(o) => positive("blocksize", o.blocksize),
            Op::GroupNormalization(o) => positive("num_groups", o.num_groups),
            Op::LRN(o) => positive("size", o.size),
            Op::GlobalPool(o) => o.p.map_or(Ok(()), check_exponent),
            Op::BatchNormalization(_)
            | Op::InstanceNormalization(_)
            | Op::LayerNormalization(_)
            | Op::RMSNormalization(_)
            | Op::LpNormalization(_)
            | Op::MeanVarianceNormalization(_)
            | Op::Resize(_)
            | Op::Unary(_)
            | Op::Gelu(_)
            | Op::Predicate(_)
            | Op::Negation(_)
            | Op::Binary(_)
            | Op::Pow(_)
            | Op::Mod(_)
            | Op::Variadic(_)
            | Op::Bitwise(_)
            | Op::BitShift(_)
            | Op::Compare(_)
            | Op::Clip(_)
            | Op::Reduce(_)
            | Op::ArgExtreme(_)
            | Op::Cumulative(_)
            | Op::Softmax(_)
            | Op::MatMul(_)
            | Op::Gemm(_)
            | Op::Einsum(_)
            | Op::QuantizeLinear(_)
            | Op::DequantizeLinear(_)
            | Op::DynamicQuantizeLinear(_)
            | Op::MatMulInteger(_)
            | Op::QLinearMatMul(_)
            | Op::Loss(_)
            | Op::Reshape(_)
            | Op::Flatten(_)
            | Op::Squeeze(_)
            | Op::Unsqueeze(_)
            | Op::Identity(_)
            | Op::Concat(_)
            | Op::Split(_)
            | Op::Slice(_)
            | Op::Shape(_)
            | Op::Size(_)
            | Op::Gather(_)
            | Op::Cast(_)
            | Op::ConstantOfShape(_)
            | Op::Range(_)
            | Op::EyeLike(_)
            | Op::Expand(_)
            | Op::Tile(_)
            | Op::Where(_)
            | Op::Pad(_)
            | Op::GatherElements(_)
            | Op::GatherND(_)
            | Op::ScatterElements(_)
            | Op::ScatterND(_)
            | Op::TensorScatter(_)
            | Op::OneHot(_)
            | Op::Trilu(_)
            | Op::NonZero(_)
            | Op::Compress(_)
            | Op::ReverseSequence(_)
            | Op::TopK(_)
            | Op::Unique(_)
            | Op::CenterCropPad(_)
            | Op::Col2Im(_)
            | Op::BitCast(_) => Ok(()),
        }
    }
}
