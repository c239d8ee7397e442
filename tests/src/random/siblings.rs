//! Left sides of the rule about siblings.

use super::{
    Rng, Text,
    conv::{Shape, float},
    map,
};

/// A slice of a convolution whose kernel is put together from several.
#[must_use]
pub fn slice_of_siblings(rng: &mut Rng) -> String {
    let c = rng.range(1, 3);
    let x = map(rng, c);
    let s = Shape::random(rng, 1, 1, x.spatial());
    let dtype = float(rng);
    let mut t = Text::new(rng, dtype);
    let input = t.input(&x.dims());
    let rows: Vec<i64> = (0..rng.range(2, 4)).map(|_| rng.range(1, 2)).collect();
    let total: i64 = rows.iter().sum();
    let group = if c == 2 && total % 2 == 0 && rng.chance(40) { 2 } else { 1 };
    let (mut kernels, mut biases) = (Vec::new(), Vec::new());
    for n in &rows {
        let shape: Vec<i64> = [*n, c / group].into_iter().chain(s.taps.iter().copied()).collect();
        kernels.push(t.random(&shape));
        biases.push(t.random(&[*n]));
    }
    // Parts of other sizes than the kernels'.
    if rng.chance(10) {
        biases.reverse();
    }
    let w = t.op("Concat", &names(&kernels), "axis=0");
    let b = match rng.range(0, 2) {
        0 => "_".to_owned(),
        _ => t.op("Concat", &names(&biases), "axis=0"),
    };
    let pads: Vec<i64> = s.begin.iter().chain(&s.end).copied().collect();
    let attributes = format!(
        "auto_pad=\"NOTSET\", dilations={:?}, group={group}, pads={pads:?}, strides={:?}",
        s.dilations, s.strides
    );
    let y = t.op("Conv", &[&input, &w, &b], &attributes);
    let i = rng.range(0, rows.len() as i64 - 1) as usize;
    let mut first: i64 = rows[..i].iter().sum();
    if rng.chance(30) {
        first = rng.range(0, total - rows[i]);
    }
    // Every second channel, as many of them.
    let step = if rng.chance(10) { 2 } else { 1 };
    let (from, to, axis, step) = (t.ints(&[first]), t.ints(&[first + rows[i] * step]), t.ints(&[1]), t.ints(&[step]));
    let z = t.op("Slice", &[&y, &from, &to, &axis, &step], "");
    t.finish(&z)
}

fn names(v: &[String]) -> Vec<&str> {
    v.iter().map(String::as_str).collect()
}
