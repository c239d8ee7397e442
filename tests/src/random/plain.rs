//! Left sides of the rules about identities.

use super::{Rng, Text, fixed, tensor};

pub(super) fn dtype(rng: &mut Rng) -> &'static str {
    rng.pick(&["f32", "f32", "f64", "f16", "i64", "i32"])
}

/// An Identity.
#[must_use]
pub fn identities(rng: &mut Rng) -> String {
    let dtype = dtype(rng);
    let mut t = Text::new(rng, dtype);
    let (x, _) = tensor(rng, &mut t, 0);
    let y = t.op("Identity", &[&x], "");
    t.finish(&y)
}

/// A Cast.
#[must_use]
pub fn casts(rng: &mut Rng) -> String {
    let dtype = rng.pick(&["f32", "f64", "i64", "i32"]);
    let mut t = Text::new(rng, dtype);
    let (x, _) = tensor(rng, &mut t, 0);
    let to = if rng.chance(60) { dtype } else { rng.pick(&["f32", "f64"]) };
    let y = t.op("Cast", &[&x], &format!("to=\"{to}\""));
    t.finish(&y)
}

/// The operator `op` of one operand, once or twice.
#[must_use]
pub fn twice(rng: &mut Rng, op: &str) -> String {
    let dtype = rng.pick(&["f32", "f64", "i32"]);
    let mut t = Text::new(rng, dtype);
    let (x, _) = tensor(rng, &mut t, 0);
    let inner = t.op(rng.pick(&[op, op, "Identity"]), &[&x], "");
    let y = t.op(op, &[&inner], "");
    t.finish(&y)
}

/// A Concat of one tensor or two.
#[must_use]
pub fn concats(rng: &mut Rng) -> String {
    let dtype = dtype(rng);
    let mut t = Text::new(rng, dtype);
    let (x, shape) = tensor(rng, &mut t, 1);
    let rank = shape.len() as i64;
    let axis = rng.range(0, rank - 1);
    let operands = if rng.chance(60) { vec![x.as_str()] } else { vec![x.as_str(), x.as_str()] };
    let y = t.op("Concat", &operands, &format!("axis={axis}"));
    t.finish(&y)
}

/// A tensor and a constant under `kinds`, in either order; the constant is the integer `element` all over, or nearly.
#[must_use]
pub fn neutral(rng: &mut Rng, kinds: &[&str], element: i64) -> String {
    let dtype = rng.pick(&["f32", "f32", "f64", "i64", "i32"]);
    let mut t = Text::new(rng, dtype);
    let (x, shape) = tensor(rng, &mut t, 0);
    let keep = rng.range(0, shape.len() as i64) as usize;
    let mut of: Vec<i64> =
        shape[shape.len() - keep..].iter().map(|d| if rng.chance(50) { 1 } else { fixed(d) }).collect();
    // Wider than the tensor.
    if rng.chance(15) && !of.is_empty() {
        let last = of.len() - 1;
        of[last] = 3;
    }
    if rng.chance(10) {
        of.insert(0, rng.range(1, 2));
    }
    let constant = if rng.chance(15) {
        t.positive_of(dtype, &of)
    } else {
        let odd = rng.chance(20);
        let count: i64 = of.iter().product();
        let v: Vec<i64> = (0..count).map(|i| if i == 0 && odd { element + 1 } else { element }).collect();
        t.constant_of(dtype, &of, &format!("{v:?}"))
    };
    let kind = rng.pick(kinds);
    let (a, b) = if rng.chance(60) { (&x, &constant) } else { (&constant, &x) };
    let y = t.op(kind, &[a, b], "");
    t.finish(&y)
}

/// A tensor and a fill of the shape of it or of another one, viewed or not.
#[must_use]
pub fn fills(rng: &mut Rng) -> String {
    let dtype = rng.pick(&["f32", "f64", "i64"]);
    let mut t = Text::new(rng, dtype);
    let (x, shape) = tensor(rng, &mut t, 1);
    // Wider along one axis, or as wide.
    let mut other = shape.clone();
    if rng.chance(25) {
        let at = rng.range(0, shape.len() as i64 - 1) as usize;
        other[at] = rng.pick(&["1", "3", "K"]).to_owned();
    }
    let like = if rng.chance(50) { x.clone() } else { t.input(&other) };
    let sizes = t.op("Shape", &[&like], "start=0");
    let value = rng.pick(&["1", "2", "-3"]);
    let of = if dtype == "i64" { value.to_owned() } else { format!("{value}.0") };
    let mut fill = t.op("ConstantOfShape", &[&sizes], &format!("value={dtype}[1] = [{of}]"));
    if rng.chance(30) {
        let front = t.ints(&[0]);
        fill = t.op("Unsqueeze", &[&fill, &front], "");
        if rng.chance(70) {
            fill = t.op("Squeeze", &[&fill, &front], "");
        }
    }
    let kind = rng.pick(&["Add", "Sub", "Mul"]);
    let (a, b) = if rng.chance(60) { (&x, &fill) } else { (&fill, &x) };
    let y = t.op(kind, &[a, b], "");
    t.finish(&y)
}

/// A Concat that another one reads, along the same axis or not.
#[must_use]
pub fn concat_of_concat(rng: &mut Rng) -> String {
    let dtype = dtype(rng);
    let mut t = Text::new(rng, dtype);
    let (x, shape) = tensor(rng, &mut t, 1);
    let rank = shape.len() as i64;
    let (inner, outer) = (rng.range(0, rank - 1), rng.range(0, rank - 1));
    let of = if rng.chance(50) { x.clone() } else { t.input(&shape) };
    let y = t.op("Concat", &[&x, &of], &format!("axis={inner}"));
    let others = if inner == outer { vec![y.as_str(), x.as_str()] } else { vec![y.as_str(), y.as_str()] };
    let operands: Vec<&str> = if rng.chance(50) { others } else { others.into_iter().rev().collect() };
    let z = t.op("Concat", &operands, &format!("axis={outer}"));
    t.finish(&z)
}
