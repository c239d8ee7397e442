//! Left sides of the rules about views and rearrangements.

use super::{Rng, Text, fixed, plain::dtype, tensor};

/// An operator on `x` that keeps the elements in their order; `shape` becomes that of the result.
fn view_of(rng: &mut Rng, t: &mut Text, x: &str, shape: &mut Vec<String>) -> String {
    let rank = shape.len() as i64;
    match rng.range(0, 4) {
        0 => {
            let axis = rng.range(0, rank);
            let product = |d: &[String]| if d.is_empty() { "1".to_owned() } else { d.join("*") };
            let y = t.op("Flatten", &[x], &format!("axis={axis}"));
            *shape = vec![product(&shape[..axis as usize]), product(&shape[axis as usize..])];
            y
        }
        1 => {
            let at = rng.range(0, rank);
            let axes = t.ints(&[if rng.chance(50) { at } else { at - rank - 1 }]);
            shape.insert(at as usize, "1".into());
            t.op("Unsqueeze", &[x, &axes], "")
        }
        2 => {
            let taken: Vec<i64> = (0..rank).filter(|&a| shape[a as usize] == "1" && rng.chance(60)).collect();
            let axes = t.ints(&taken);
            let mut a = -1;
            shape.retain(|_| {
                a += 1;
                !taken.contains(&a)
            });
            t.op("Squeeze", &[x, &axes], "")
        }
        _ => reshape(rng, t, x, shape),
    }
}

/// A Reshape to a constant shape: some sizes copied, neighbours joined, at most one left open.
fn reshape(rng: &mut Rng, t: &mut Text, x: &str, shape: &mut Vec<String>) -> String {
    let mut open = rng.chance(60);
    let (mut target, mut result) = (Vec::new(), Vec::new());
    let mut a = 0;
    while a < shape.len() {
        let joins = a + 1 < shape.len() && rng.chance(35);
        let parts = &shape[a..a + 1 + usize::from(joins)];
        let number: Option<i64> = parts.iter().map(|d| d.parse::<i64>().ok()).product();
        result.push(parts.join("*"));
        match number {
            Some(n) if !open || rng.chance(70) => target.push(n),
            _ if !joins && target.len() == a && rng.chance(60) => target.push(0),
            _ => {
                open = false;
                target.push(-1);
            }
        }
        a += parts.len();
    }
    if rng.chance(25) {
        target.push(1);
        result.push("1".into());
    }
    let target = t.ints(&target);
    *shape = result;
    t.op("Reshape", &[x, &target], "allowzero=0")
}

/// A view or an Expand, often of the shape that is there.
#[must_use]
pub fn view(rng: &mut Rng) -> String {
    let mut t = Text::new(rng, "f32");
    let (x, mut shape) = tensor(rng, &mut t, 1);
    let y = if rng.chance(25) {
        let target: Vec<i64> = shape.iter().map(|d| if rng.chance(70) { 1 } else { fixed(d) }).collect();
        let target = t.ints(&target);
        t.op("Expand", &[&x, &target], "")
    } else if rng.chance(30) {
        let open = rng.range(0, shape.len() as i64) as usize;
        let target: Vec<i64> = (0..shape.len()).map(|a| if a == open { -1 } else { 0 }).collect();
        let target = t.ints(&target);
        t.op("Reshape", &[&x, &target], "allowzero=0")
    } else {
        view_of(rng, &mut t, &x, &mut shape)
    };
    t.finish(&y)
}

/// A view of a view.
#[must_use]
pub fn views(rng: &mut Rng) -> String {
    let mut t = Text::new(rng, "f32");
    let (x, mut shape) = tensor(rng, &mut t, 1);
    let y = view_of(rng, &mut t, &x, &mut shape);
    let z = view_of(rng, &mut t, &y, &mut shape);
    t.finish(&z)
}

/// A Reshape whose shape is computed from the tensor's: sizes of the operand, in order or not, and one that is left open.
#[must_use]
pub fn computed_reshape(rng: &mut Rng) -> String {
    let mut t = Text::new(rng, "f32");
    let (x, shape) = tensor(rng, &mut t, 2);
    let rank = shape.len() as i64;
    let mut parts = Vec::new();
    let open = if rng.chance(80) { rng.range(0, rank - 1) } else { rank };
    for a in 0..rank {
        if a == open {
            parts.push(t.ints(&[-1]));
        } else {
            let from = if rng.chance(85) { a } else { (a + 1) % rank };
            parts.push(t.op("Shape", &[&x], &format!("end={}, start={from}", from + 1)));
        }
    }
    if rng.chance(30) {
        parts.push(t.ints(&[1]));
    }
    if rng.chance(20) {
        parts.swap(0, 1);
    }
    let refs: Vec<&str> = parts.iter().map(String::as_str).collect();
    let target = t.op("Concat", &refs, "axis=0");
    let y = t.op("Reshape", &[&x, &target], "allowzero=0");
    t.finish(&y)
}

fn perm(rng: &mut Rng, rank: i64, in_order: i64) -> Vec<i64> {
    let mut left: Vec<i64> = (0..rank).collect();
    if rng.chance(in_order) {
        return left;
    }
    if rng.chance(10) {
        return Vec::new();
    }
    let mut out = Vec::new();
    while !left.is_empty() {
        out.push(left.remove(rng.range(0, left.len() as i64 - 1) as usize));
    }
    out
}

/// A Transpose.
#[must_use]
pub fn transpose(rng: &mut Rng) -> String {
    let dtype = dtype(rng);
    let mut t = Text::new(rng, dtype);
    let (x, shape) = tensor(rng, &mut t, 1);
    let p = perm(rng, shape.len() as i64, 60);
    let y = t.op("Transpose", &[&x], &format!("perm={p:?}"));
    t.finish(&y)
}

/// A Transpose of a tensor most of whose sizes are 1.
#[must_use]
pub fn transpose_of_ones(rng: &mut Rng) -> String {
    let dtype = dtype(rng);
    let mut t = Text::new(rng, dtype);
    let shape: Vec<String> = (0..rng.range(2, 4))
        .map(|a| match rng.range(0, 7) {
            0 => ["N", "H", "W", "D"][a as usize].to_owned(),
            1 | 2 => rng.range(0, 3).to_string(),
            _ => "1".to_owned(),
        })
        .collect();
    let x = t.input(&shape);
    let p = perm(rng, shape.len() as i64, 5);
    let y = t.op("Transpose", &[&x], &format!("perm={p:?}"));
    t.finish(&y)
}

/// A Transpose of a Transpose.
#[must_use]
pub fn transposes(rng: &mut Rng) -> String {
    let dtype = dtype(rng);
    let mut t = Text::new(rng, dtype);
    let (x, shape) = tensor(rng, &mut t, 2);
    let (p, q) = (perm(rng, shape.len() as i64, 5), perm(rng, shape.len() as i64, 5));
    let y = t.op("Transpose", &[&x], &format!("perm={p:?}"));
    let z = t.op("Transpose", &[&y], &format!("perm={q:?}"));
    t.finish(&z)
}

/// A Slice that takes all, or nearly.
#[must_use]
pub fn slices(rng: &mut Rng) -> String {
    let mut t = Text::new(rng, "f32");
    let (x, shape) = tensor(rng, &mut t, 1);
    let rank = shape.len() as i64;
    let axes: Vec<i64> = (0..rank).filter(|_| rng.chance(60)).collect();
    let axes = if axes.is_empty() { vec![0] } else { axes };
    let (mut starts, mut ends, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    for &a in &axes {
        let n = shape[a as usize].parse::<i64>().unwrap_or(5);
        let (start, end, step) = match rng.range(0, 8) {
            0 | 1 => (-1, -i64::MAX, -1),
            2 => (1, i64::MAX, 1),
            3 => (0, -1, 1),
            4 => (-n, n, 1),
            5 => (0, n, rng.range(1, 2)),
            _ => (0, i64::MAX, 1),
        };
        starts.push(start);
        ends.push(end);
        steps.push(step);
    }
    let given = rng.chance(70) || steps.iter().any(|&s| s != 1);
    let (starts, ends, axes) = (t.ints(&starts), t.ints(&ends), t.ints(&axes));
    let steps = if given { t.ints(&steps) } else { "_".to_owned() };
    let y = t.op("Slice", &[&x, &starts, &ends, &axes, &steps], "");
    t.finish(&y)
}

/// A Gather that takes all in order, or nearly.
#[must_use]
pub fn gathers(rng: &mut Rng) -> String {
    let dtype = dtype(rng);
    let mut t = Text::new(rng, dtype);
    let (x, shape) = tensor(rng, &mut t, 1);
    let rank = shape.len() as i64;
    let axis = rng.range(0, rank - 1);
    let n = fixed(&shape[axis as usize]);
    let mut indices: Vec<i64> = (0..n).map(|i| if rng.chance(20) { i - n } else { i }).collect();
    match rng.range(0, 7) {
        0 => indices.reverse(),
        1 => indices.push(0),
        2 => {
            indices.pop();
        }
        3 if n > 1 => indices.swap(0, 1),
        _ => {}
    }
    let count = indices.len() as i64;
    let indices_shape = match rng.range(0, 4) {
        0 if count == 1 => vec![],
        1 => vec![1, count],
        2 if count % 2 == 0 => vec![2, count / 2],
        _ => vec![count],
    };
    let i = t.constant_of("i64", &indices_shape, &format!("{indices:?}"));
    let y = t.op("Gather", &[&x, &i], &format!("axis={axis}"));
    t.finish(&y)
}

/// A Pad that adds nothing, or whose pads cancel.
#[must_use]
pub fn pads(rng: &mut Rng) -> String {
    let mut t = Text::new(rng, "f32");
    let (x, shape) = tensor(rng, &mut t, 1);
    let mut v = vec![0; 2 * shape.len()];
    match rng.range(0, 3) {
        0 => {
            v[0] = 1;
            v[shape.len()] = -1;
        }
        1 => v[rng.range(0, 2 * shape.len() as i64 - 1) as usize] = rng.range(-1, 1),
        _ => {}
    }
    let mode = rng.pick(&["constant", "edge"]);
    let v = t.ints(&v);
    let y = t.op("Pad", &[&x, &v], &format!("mode=\"{mode}\""));
    t.finish(&y)
}
