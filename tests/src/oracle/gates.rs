//! Formulas of the operators of domain `ai.convc` that are made of several convolutions.

use convc_runtime::{
    ops::{Conv, GhostModule, SCConv, SplitAttention, ghost_module::Activation},
    scalar::Scalar,
    window::AutoPad,
};

use super::{
    Array, indices,
    ops::{Operands, conv, need},
};

fn window(strides: &[i64], pads: &[i64], dilations: &[i64], group: i64) -> Conv {
    Conv { strides: strides.into(), pads: pads.into(), dilations: dilations.into(), group, auto_pad: AutoPad::NotSet }
}

fn at<'a, S>(operands: &Operands<'a, S>, i: usize) -> Option<&'a Array<S>> {
    operands.get(i).copied().flatten()
}

fn activated<S: Scalar>(activation: &Activation, x: Array<S>) -> Array<S> {
    match activation {
        Activation::Identity => x,
        Activation::Relu => Array::real(x.shape.clone(), x.reals().iter().map(|v| v.max(S::ZERO)).collect()),
    }
}

fn sigmoid<S: Scalar>(x: S) -> S {
    x.apply("Sigmoid", |v| 1.0 / (1.0 + (-v).exp()))
}

/// Both convolutions; of their channels one behind the other the first.
pub(super) fn ghost_module<S: Scalar>(op: &GhostModule, operands: &Operands<'_, S>) -> Result<Array<S>, String> {
    let (x, w1, w2) = (need(operands, 0)?, need(operands, 1)?, need(operands, 3)?);
    let first = window(&op.strides, &op.pads, &op.dilations, op.group);
    let p = activated(&op.activation, conv(&first, x, w1, at(operands, 2))?);
    let channels = p.shape[1];
    let second = window(&vec![1; op.strides.len()], &op.cheap_pads, &op.cheap_dilations, channels);
    let q = activated(&op.activation, conv(&second, &p, w2, at(operands, 4))?);
    let mut shape = p.shape.clone();
    shape[1] = op.out_channels;
    let element = |i: &Vec<i64>| {
        let mut j = i.clone();
        j[1] -= channels;
        if i[1] < channels { p.at(i) } else { q.at(&j) }
    };
    let data = indices(&shape).iter().map(element).collect();
    Ok(Array::real(shape, data))
}

/// The convolution of the input, gated by a sigmoid of the input and what its tiles' means become.
pub(super) fn sc_conv<S: Scalar>(op: &SCConv, operands: &Operands<'_, S>) -> Result<Array<S>, String> {
    let (x, w2, w3, w4) = (need(operands, 0)?, need(operands, 1)?, need(operands, 3)?, need(operands, 5)?);
    let (n, r) = (op.strides.len(), op.pool_size);
    let tiles: Vec<i64> = x.shape.iter().enumerate().map(|(a, size)| if a < 2 { *size } else { size / r }).collect();
    let inside = indices(&vec![r; n]);
    let mean = |i: &Vec<i64>| {
        let sum = inside.iter().fold(S::ZERO, |sum, o| {
            let from: Vec<i64> = (0..).zip(i).map(|(a, i)| if a < 2 { *i } else { i * r + o[a - 2] }).collect();
            sum.add(x.at(&from))
        });
        sum.div(S::from_f64(inside.len() as f64))
    };
    let pooled = Array::real(tiles.clone(), indices(&tiles).iter().map(mean).collect());
    let keeping = window(&vec![1; n], &op.pads, &op.dilations, op.group);
    let small = conv(&keeping, &pooled, w2, at(operands, 2))?;
    let body = conv(&keeping, x, w3, at(operands, 4))?;
    let gated = |i: &Vec<i64>| {
        let tile: Vec<i64> =
            (0..).zip(i).map(|(a, i)| if a < 2 { *i } else { i * small.shape[a] / x.shape[a] }).collect();
        body.at(i).mul(sigmoid(x.at(i).add(small.at(&tile))))
    };
    let y = Array::real(x.shape.clone(), indices(&x.shape).iter().map(gated).collect());
    conv(&window(&op.strides, &op.pads, &op.dilations, op.group), &y, w4, at(operands, 6))
}

/// `W v + b` in groups, for each sample.
fn pointwise<S: Scalar>(
    v: &[Vec<S>],
    w: &Array<S>,
    b: Option<&Array<S>>,
    groups: i64,
    f: impl Fn(S) -> S,
) -> Vec<Vec<S>> {
    let (outputs, inputs) = (w.shape[0], w.shape[1]);
    let channel = |v: &Vec<S>, o: i64| {
        let from = o / (outputs / groups) * inputs;
        let bias = b.map_or(S::ZERO, |b| b.reals()[o as usize]);
        f((0..inputs).fold(bias, |sum, i| sum.add(w.reals()[(o * inputs + i) as usize].mul(v[(from + i) as usize]))))
    };
    v.iter().map(|v| (0..outputs).map(|o| channel(v, o)).collect()).collect()
}

/// Parts weighed by a softmax over them, for each sample and channel.
pub(super) fn split_attention<S: Scalar>(op: &SplitAttention, operands: &Operands<'_, S>) -> Result<Array<S>, String> {
    let (x, w, w1, w2) = (need(operands, 0)?, need(operands, 1)?, need(operands, 3)?, need(operands, 5)?);
    let u = conv(&window(&op.strides, &op.pads, &op.dilations, op.group), x, w, at(operands, 2))?;
    let u = activated(&op.activation, u);
    let (radix, groups) = (op.radix, op.cardinality);
    let channels = u.shape[1] / radix;
    let width = channels / groups;
    let places = indices(&u.shape[2..]);
    let of = |n: i64, c: i64, place: &[i64]| [&[n, c], place].concat();
    let mean = |n: i64, c: i64| {
        let all = (0..radix).flat_map(|r| places.iter().map(move |p| (r, p)));
        let sum = all.fold(S::ZERO, |sum, (r, p)| sum.add(u.at(&of(n, r * channels + c, p))));
        sum.div(S::from_f64(places.len() as f64))
    };
    let s: Vec<Vec<S>> = (0..u.shape[0]).map(|n| (0..channels).map(|c| mean(n, c)).collect()).collect();
    let h = pointwise(&s, w1, at(operands, 4), groups, |v| v.max(S::ZERO));
    let a = pointwise(&h, w2, at(operands, 6), groups, |v| v);
    let weight = |n: i64, c: i64, r: i64| {
        let (k, j) = (c / width, c % width);
        let logit = |r: i64| a[n as usize][((k * radix + r) * width + j) as usize];
        if radix == 1 {
            return sigmoid(logit(0));
        }
        let exp = |r: i64| logit(r).apply("Exp", f64::exp);
        exp(r).div((0..radix).fold(S::ZERO, |sum, r| sum.add(exp(r))))
    };
    let mut shape = u.shape.clone();
    shape[1] = channels;
    let element = |i: &Vec<i64>| {
        let (n, c) = (i[0], i[1]);
        let part = |r: i64| weight(n, c, r).mul(u.at(&of(n, r * channels + c, &i[2..])));
        (0..radix).fold(S::ZERO, |sum, r| sum.add(part(r)))
    };
    let data = indices(&shape).iter().map(element).collect();
    Ok(Array::real(shape, data))
}
