//! Formulas of the operators of domain `ai.convc`.

use convc_runtime::{
    ops::{Conv, DOConv},
    scalar::Scalar,
    window::AutoPad,
};

use super::{Array, indices};

/// The kernel by the paper's formula, and one convolution.
pub(super) fn do_conv<S: Scalar>(
    op: &DOConv,
    x: &Array<S>,
    d: &Array<S>,
    w: &Array<S>,
    b: Option<&Array<S>>,
) -> Result<Array<S>, String> {
    let [outputs, inputs, depth] = w.shape[..] else { return Err("W of another rank than 3".into()) };
    let taps: i64 = op.kernel_shape.iter().product();
    let channels = inputs * op.group;
    let mut kernel = Vec::new();
    for i in indices(&[outputs / op.group, channels, taps]) {
        let mut sum = S::ZERO;
        for s in 0..depth {
            let row = (i[0] * channels + i[1]) * depth + s;
            sum = sum.add(d.at(&[i[1], i[2], s]).mul(w.reals()[row as usize]));
        }
        kernel.push(sum);
    }
    let shape = [outputs, inputs].into_iter().chain(op.kernel_shape.iter().copied()).collect();
    let conv = Conv {
        strides: op.strides.clone(),
        pads: op.pads.clone(),
        dilations: op.dilations.clone(),
        group: op.group,
        auto_pad: AutoPad::NotSet,
    };
    super::ops::conv(&conv, x, &Array::real(shape, kernel), b)
}
