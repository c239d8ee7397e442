//! Formulas of the operators of domain `ai.convc`.

use convc_runtime::{
    ops::{Conv, DOConv, Involution, MixedConv},
    scalar::Scalar,
    window::AutoPad,
};

use super::{Array, indices, ops::Operands, ops::need};

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

/// One kernel for each output position and group, tap by tap.
pub(super) fn involution<S: Scalar>(op: &Involution, x: &Array<S>, ker: &Array<S>) -> Result<Array<S>, String> {
    let spatial = op.kernel_shape.len();
    let taps = indices(&op.kernel_shape);
    let (channels, per_group) = (x.shape[1], taps.len() as i64);
    if ker.shape[1] != op.group * per_group || channels % op.group != 0 {
        return Err("a kernel map of other channels".into());
    }
    let shape: Vec<i64> = [x.shape[0], channels].into_iter().chain(ker.shape[2..].iter().copied()).collect();
    for a in 0..spatial {
        let reach = op.dilations[a] * (op.kernel_shape[a] - 1) + 1;
        let room = x.shape[a + 2] + op.pads[a] + op.pads[spatial + a] - reach;
        if room < 0 || room / op.strides[a] + 1 != shape[a + 2] {
            return Err("a kernel map of other sizes".into());
        }
    }
    let at = |o: &Vec<i64>| {
        let group = o[1] / (channels / op.group);
        let mut sum = S::ZERO;
        for (t, tap) in taps.iter().enumerate() {
            let place: Vec<i64> =
                (0..spatial).map(|a| op.strides[a] * o[a + 2] - op.pads[a] + op.dilations[a] * tap[a]).collect();
            if place.iter().zip(&x.shape[2..]).all(|(p, n)| (0..*n).contains(p)) {
                let from: Vec<i64> = [o[0], o[1]].into_iter().chain(place).collect();
                let kernel: Vec<i64> =
                    [o[0], group * per_group + t as i64].into_iter().chain(o[2..].iter().copied()).collect();
                sum = sum.add(ker.at(&kernel).mul(x.at(&from)));
            }
        }
        sum
    };
    let data = indices(&shape).iter().map(at).collect();
    Ok(Array::real(shape, data))
}

/// `y[n] = conv(x[n], sum over e of r[n, e] W[e], sum over e of r[n, e] B[e], or B)`, sample by sample.
pub(super) fn mixed_conv<S: Scalar>(op: &MixedConv, operands: &Operands<'_, S>) -> Result<Array<S>, String> {
    let (x, r, w) = (need(operands, 0)?, need(operands, 1)?, need(operands, 2)?);
    let b = operands.get(3).copied().flatten();
    let (n, experts) = (x.shape[0], w.shape[0]);
    if r.shape != [n, experts] {
        return Err(format!("{:?} coefficients of {n} samples and {experts} experts", r.shape));
    }
    let mixed = |of: &Array<S>, sample: i64| {
        let shape = of.shape[1..].to_vec();
        let at = |i: &Vec<i64>| {
            let place = |e: i64| -> Vec<i64> { [e].into_iter().chain(i.iter().copied()).collect() };
            (0..experts).fold(S::ZERO, |sum, e| sum.add(r.at(&[sample, e]).mul(of.at(&place(e)))))
        };
        let data = indices(&shape).iter().map(at).collect();
        Array::real(shape, data)
    };
    let conv = Conv {
        strides: op.strides.clone(),
        pads: op.pads.clone(),
        dilations: op.dilations.clone(),
        group: op.group,
        auto_pad: AutoPad::NotSet,
    };
    let one = [1].into_iter().chain(x.shape[1..].iter().copied()).collect::<Vec<i64>>();
    let (mut data, mut shape) = (Vec::new(), None);
    // An empty batch has the sizes of a sample of zeros.
    for sample in 0..n.max(1) {
        let at = |i: &Vec<i64>| {
            let from: Vec<i64> = [sample].into_iter().chain(i[1..].iter().copied()).collect();
            if n == 0 { S::ZERO } else { x.at(&from) }
        };
        let part = Array::real(one.clone(), indices(&one).iter().map(at).collect());
        let sum = |of: &Array<S>| {
            if n == 0 { Array::real(of.shape[1..].to_vec(), zeros(&of.shape[1..])) } else { mixed(of, sample) }
        };
        let bias = b.map(|b| if b.shape.len() == 2 { sum(b) } else { b.clone() });
        let y = super::ops::conv(&conv, &part, &sum(w), bias.as_ref())?;
        if n > 0 {
            data.extend_from_slice(y.reals());
        }
        shape = Some(y.shape);
    }
    let mut shape = shape.ok_or("no sample")?;
    shape[0] = n;
    Ok(Array::real(shape, data))
}

fn zeros<S: Scalar>(shape: &[i64]) -> Vec<S> {
    indices(shape).iter().map(|_| S::ZERO).collect()
}
