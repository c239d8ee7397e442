//! Left sides of the rules about bounds of elements, and about padding and reducing twice.

use super::{Rng, Text, tensor};

fn bound(rng: &mut Rng, t: &mut Text) -> String {
    let v = rng.pick(&["-0.5", "0.0", "0.0", "-0.0", "0.25", "0.75", "-inf", "inf", "1.0"]);
    let (dtype, shape) = (t.dtype, rng.pick(&[&[][..], &[1]]));
    if shape.is_empty() || rng.chance(80) {
        return t.constant_of(dtype, &[], &format!("[{v}]"));
    }
    t.constant_of(dtype, shape, &format!("[{v}]"))
}

fn clamp(rng: &mut Rng, t: &mut Text, x: &str) -> String {
    if rng.chance(25) {
        return t.op("Relu", &[x], "");
    }
    let mut of = |t: &mut Text| match rng.range(0, 9) {
        0..2 => "_".to_owned(),
        2 => t.input(&[]),
        _ => bound(rng, t),
    };
    let (lower, upper) = (of(t), of(t));
    t.op("Clip", &[x, &lower, &upper], "")
}

/// Two of Relu and Clip, with crossed and infinite bounds among others.
#[must_use]
pub fn clamps(rng: &mut Rng) -> String {
    let dtype = rng.pick(&["f64", "f64", "f32"]);
    let mut t = Text::new(rng, dtype);
    let (x, _) = tensor(rng, &mut t, 0);
    let y = clamp(rng, &mut t, &x);
    let z = clamp(rng, &mut t, &y);
    t.finish(&z)
}

/// A Relu, or a Clip that begins at 0 or below, behind what mostly has no negative element.
#[must_use]
pub fn relu_of_nonnegative(rng: &mut Rng) -> String {
    let mut t = Text::new(rng, "f64");
    let (x, _) = tensor(rng, &mut t, 0);
    let y = t.op(rng.pick(&["Relu", "Sigmoid", "Abs", "Exp", "Tanh", "Identity"]), &[&x], "");
    let y = match rng.range(0, 3) {
        0 => t.op("Add", &[&y, &y], ""),
        1 => t.op(rng.pick(&["Mul", "Max", "Min", "Add"]), &[&y, &x], ""),
        _ => y,
    };
    let z = if rng.chance(70) {
        t.op("Relu", &[&y], "")
    } else {
        let low = t.constant_of("f64", &[], rng.pick(&["[0.0]", "[-1.0]", "[0.25]"]));
        let high = if rng.chance(80) { "_".to_owned() } else { t.constant_of("f64", &[], "[1.0]") };
        t.op("Clip", &[&y, &low, &high], "")
    };
    t.finish(&z)
}

/// Max or Min of a tensor and a constant.
#[must_use]
pub fn extremes(rng: &mut Rng) -> String {
    let mut t = Text::new(rng, "f64");
    let (x, shape) = tensor(rng, &mut t, 0);
    let c = match rng.range(0, 5) {
        0 => t.random(&[3]),
        1 => {
            let ones = vec![1; shape.len() + 1];
            t.random(&ones)
        }
        2 => t.random(&vec![1; shape.len()]),
        _ => bound(rng, &mut t),
    };
    let (a, b) = if rng.chance(50) { (&x, &c) } else { (&c, &x) };
    let y = t.op(rng.pick(&["Max", "Min"]), &[a, b], "");
    t.finish(&y)
}

/// A Pad behind a Pad.
#[must_use]
pub fn pad_of_pad(rng: &mut Rng) -> String {
    let dtype = rng.pick(&["f64", "f32"]);
    let mut t = Text::new(rng, dtype);
    let (x, shape) = tensor(rng, &mut t, 1);
    let rank = shape.len() as i64;
    let usual = rng.pick(&["constant", "constant", "edge"]);
    let value = rng.range(0, 2);
    let mut pad = |t: &mut Text, x: &str| {
        let mode = if rng.chance(88) { usual } else { rng.pick(&["constant", "edge", "reflect"]) };
        let axes: Vec<i64> = match rng.chance(70) {
            true => (0..rank).collect(),
            false => vec![rng.range(-rank, rank - 1)],
        };
        let low = if rng.chance(12) { -1 } else { 0 };
        let pads: Vec<i64> = (0..2 * axes.len()).map(|_| rng.range(low, 2)).collect();
        let pads = t.ints(&pads);
        let listed = if axes.len() as i64 == rank { "_".to_owned() } else { t.ints(&axes) };
        let v = if rng.chance(80) { value } else { rng.range(0, 2) };
        let filling = match (mode, v) {
            ("constant", 1..) => t.constant_of(dtype, &[], &format!("[{v}.0]")),
            ("constant", _) if rng.chance(50) => t.constant_of(dtype, &[], "[0.0]"),
            _ => "_".to_owned(),
        };
        t.op("Pad", &[x, &pads, &filling, &listed], &format!("mode={mode:?}"))
    };
    let y = pad(&mut t, &x);
    let z = pad(&mut t, &y);
    t.finish(&z)
}

const KINDS: &[&str] =
    &["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare"];

/// A reduction behind a reduction.
#[must_use]
pub fn reductions(rng: &mut Rng) -> String {
    let mut t = Text::new(rng, "f64");
    let (x, shape) = tensor(rng, &mut t, 1);
    let rank = shape.len() as i64;
    let usual = rng.pick(KINDS);
    let mut reduce = |t: &mut Text, x: &str, rank: i64| -> (String, i64) {
        let kind = if rng.chance(85) { usual } else { rng.pick(KINDS) };
        let keep = i64::from(rng.chance(50));
        let noop = i64::from(rng.chance(10));
        let axes: Vec<i64> = (0..rank).filter(|_| rng.chance(40)).collect();
        let axes: Vec<i64> = axes.into_iter().map(|a| if rng.chance(30) { a - rank } else { a }).collect();
        let count = match (axes.is_empty(), noop) {
            (true, 1) => 0,
            (true, _) => rank,
            _ => axes.len() as i64,
        };
        let listed = if axes.is_empty() { "_".to_owned() } else { t.ints(&axes) };
        let attributes = format!("keepdims={keep}, noop_with_empty_axes={noop}");
        (t.op(kind, &[x, &listed], &attributes), if keep == 1 { rank } else { rank - count })
    };
    let (y, left) = reduce(&mut t, &x, rank);
    let (z, _) = reduce(&mut t, &y, left);
    t.finish(&z)
}
