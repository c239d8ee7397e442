//! Left sides of the rules about activations that are spelled out.

use super::{Rng, Text, conv::Bias, conv::Shape, map, tensor};

/// The scalar `v` as a constant, mostly; now and then it is another one.
fn scalar(rng: &mut Rng, t: &mut Text, v: f64) -> String {
    // As exporters have it, in f32, whatever the type of the map.
    let v = f64::from((if rng.chance(4) { v * 1.25 } else { v }) as f32);
    // Now and then it has more axes than the map.
    let shape: &[i64] = match rng.range(0, 99) {
        0..3 => &[1; 6],
        3..22 => &[1],
        _ => &[],
    };
    let dtype = t.dtype;
    t.constant_of(dtype, shape, &format!("[{v:?}]"))
}

/// `a * b` in either order.
fn times(rng: &mut Rng, t: &mut Text, a: &str, b: &str) -> String {
    if rng.chance(50) { t.op("Mul", &[a, b], "") } else { t.op("Mul", &[b, a], "") }
}

fn plus(rng: &mut Rng, t: &mut Text, a: &str, b: &str) -> String {
    if rng.chance(50) { t.op("Add", &[a, b], "") } else { t.op("Add", &[b, a], "") }
}

/// `x * v`, as a product or a quotient.
fn scaled(rng: &mut Rng, t: &mut Text, x: &str, v: f64) -> String {
    if v == 1.0 && rng.chance(90) {
        return x.to_owned();
    }
    if rng.chance(50) {
        let c = scalar(rng, t, v);
        times(rng, t, x, &c)
    } else {
        let c = scalar(rng, t, 1.0 / v);
        t.op("Div", &[x, &c], "")
    }
}

/// `x + v`, as a sum or a difference.
fn shifted(rng: &mut Rng, t: &mut Text, x: &str, v: f64) -> String {
    if v == 0.0 {
        return x.to_owned();
    }
    if rng.chance(70) {
        let c = scalar(rng, t, v);
        plus(rng, t, x, &c)
    } else {
        let c = scalar(rng, t, -v);
        t.op("Sub", &[x, &c], "")
    }
}

fn clipped(rng: &mut Rng, t: &mut Text, x: &str, top: f64) -> String {
    let low = rng.chance(3);
    let dtype = t.dtype;
    let (zero, top) = (t.constant_of(dtype, &[], if low { "[-0.5]" } else { "[0.0]" }), scalar(rng, t, top));
    t.op("Clip", &[x, &zero, &top], "")
}

/// `x * gate * rest`, the constant anywhere.
fn gate(rng: &mut Rng, t: &mut Text, x: &str, gate: &str, rest: f64) -> String {
    match rng.range(0, 2) {
        0 => {
            let x = scaled(rng, t, x, rest);
            times(rng, t, &x, gate)
        }
        1 => {
            let g = scaled(rng, t, gate, rest);
            times(rng, t, x, &g)
        }
        _ => {
            let y = times(rng, t, x, gate);
            scaled(rng, t, &y, rest)
        }
    }
}

fn begin(rng: &mut Rng) -> (Text, String) {
    let mut t = Text::new(rng, "f32");
    let (x, _) = tensor(rng, &mut t, 0);
    let x = if rng.chance(30) { times(rng, &mut t, &x, &x) } else { x };
    (t, x)
}

/// HardSwish in pieces.
#[must_use]
pub fn hard_swish(rng: &mut Rng) -> String {
    let (mut t, x) = begin(rng);
    let top = rng.pick(&[6.0, 6.0, 1.0, 2.0]);
    let bounded = if top == 1.0 && rng.chance(40) {
        let alpha = if rng.chance(85) { 1.0 / 6.0 } else { 0.2 };
        t.op("HardSigmoid", &[&x], &format!("alpha={alpha:?}, beta=0.5"))
    } else {
        let line = if rng.chance(50) {
            let a = scaled(rng, &mut t, &x, top / 6.0);
            shifted(rng, &mut t, &a, top / 2.0)
        } else {
            let a = shifted(rng, &mut t, &x, 3.0);
            scaled(rng, &mut t, &a, top / 6.0)
        };
        clipped(rng, &mut t, &line, top)
    };
    let y = gate(rng, &mut t, &x, &bounded, 1.0 / top);
    t.finish(&y)
}

/// Swish in pieces.
#[must_use]
pub fn swish(rng: &mut Rng) -> String {
    let (mut t, x) = begin(rng);
    let inner = if rng.chance(50) { x.clone() } else { scaled(rng, &mut t, &x, 1.702) };
    let s = t.op("Sigmoid", &[&inner], "");
    let rest = if rng.chance(85) { 1.0 } else { 0.5 };
    let y = gate(rng, &mut t, &x, &s, rest);
    t.finish(&y)
}

/// Mish in pieces.
#[must_use]
pub fn mish(rng: &mut Rng) -> String {
    let (mut t, x) = begin(rng);
    let soft = if rng.chance(60) {
        t.op("Softplus", &[&x], "")
    } else {
        let e = t.op("Exp", &[&x], "");
        let s = shifted(rng, &mut t, &e, 1.0);
        t.op("Log", &[&s], "")
    };
    let s = t.op("Tanh", &[&soft], "");
    let rest = if rng.chance(85) { 1.0 } else { 0.5 };
    let y = gate(rng, &mut t, &x, &s, rest);
    t.finish(&y)
}

/// Gelu in pieces, by the error function or the hyperbolic tangent.
#[must_use]
pub fn gelu(rng: &mut Rng) -> String {
    let (mut t, x) = begin(rng);
    let curve = if rng.chance(50) {
        let inner = scaled(rng, &mut t, &x, std::f64::consts::FRAC_1_SQRT_2);
        t.op("Erf", &[&inner], "")
    } else {
        let cube = if rng.chance(50) {
            let square = times(rng, &mut t, &x, &x);
            times(rng, &mut t, &square, &x)
        } else {
            let three = scalar(rng, &mut t, 3.0);
            t.op("Pow", &[&x, &three], "")
        };
        let root = (2.0 / std::f64::consts::PI).sqrt();
        let inner = if rng.chance(70) {
            let term = scaled(rng, &mut t, &cube, 0.044_715);
            let sum = plus(rng, &mut t, &x, &term);
            scaled(rng, &mut t, &sum, root)
        } else {
            let (a, b) = (scaled(rng, &mut t, &x, root), scaled(rng, &mut t, &cube, 0.044_715 * root));
            plus(rng, &mut t, &a, &b)
        };
        t.op("Tanh", &[&inner], "")
    };
    let y = if rng.chance(70) {
        let s = shifted(rng, &mut t, &curve, 1.0);
        gate(rng, &mut t, &x, &s, 0.5)
    } else {
        let half = scaled(rng, &mut t, &curve, 0.5);
        let s = shifted(rng, &mut t, &half, 0.5);
        times(rng, &mut t, &x, &s)
    };
    t.finish(&y)
}

/// HardSigmoid in pieces, some of them behind a convolution.
#[must_use]
pub fn hard_sigmoid(rng: &mut Rng) -> String {
    let mut t = Text::new(rng, "f32");
    let x = if rng.chance(80) {
        tensor(rng, &mut t, 0).0
    } else {
        let x = map(rng, 2);
        let input = t.input(&x.dims());
        let s = Shape::random(rng, 2, 1, x.spatial());
        t.conv(&input, 2, &s, Bias::Random)
    };
    let top = rng.pick(&[6.0, 6.0, 1.0, 4.0, -2.0]);
    let slope = rng.pick(&[1.0, 0.5, -2.0]);
    let a = scaled(rng, &mut t, &x, slope);
    let shift = rng.pick(&[3.0, 0.5, 0.0]);
    let b = shifted(rng, &mut t, &a, shift);
    let c = clipped(rng, &mut t, &b, top);
    let y = scaled(rng, &mut t, &c, 1.0 / top);
    t.finish(&y)
}

/// A mean over positions, or over other axes, behind a pointwise convolution or a sum or product.
#[must_use]
pub fn mean_of(rng: &mut Rng, of_conv: bool) -> String {
    let c = rng.range(1, 3);
    let x = map(rng, c);
    let n = x.spatial();
    let rank = n as i64 + 2;
    let mut t = Text::new(rng, "f64");
    let input = t.input(&x.dims());
    let y = if of_conv {
        let outputs = rng.pick(&[c, c, 2]);
        let mut s = Shape::random(rng, outputs, 1, n);
        s.taps.fill(1);
        s.begin.fill(0);
        s.end.fill(0);
        if rng.chance(85) {
            s.strides.fill(1);
        }
        let b = super::conv::bias(rng);
        t.conv(&input, c, &s, b)
    } else {
        let dims: Vec<String> = x.dims();
        let skip = if rng.chance(30) { rng.range(0, rank) as usize } else { 0 };
        let of: Vec<String> = (skip..dims.len())
            .map(|a| {
                let whole = if a < 2 { rng.chance(50) } else { rng.chance(12) };
                if whole { dims[a].clone() } else { "1".to_owned() }
            })
            .collect();
        let a = t.input(&of);
        let (p, q) = if rng.chance(50) { (&input, &a) } else { (&a, &input) };
        t.op(rng.pick(&["Mul", "Mul", "Div", "Add", "Sub"]), &[p, q], "")
    };
    let z = if rng.chance(50) {
        t.op("GlobalAveragePool", &[&y], "")
    } else {
        let axes: Vec<i64> = match rng.range(0, 4) {
            0 => vec![rng.range(-rank, rank - 1)],
            1 => vec![-1],
            _ => (2..rank).collect(),
        };
        let axes = t.ints(&axes);
        t.op("ReduceMean", &[&y, &axes], &format!("keepdims={}, noop_with_empty_axes=0", i64::from(rng.chance(85))))
    };
    t.finish(&z)
}
