//! Left sides of the rules about over-parameterised convolutions, and about slices of concatenations.

use super::{
    Rng, Text,
    conv::{Shape, float},
    map,
};

/// A Slice of a Concat.
#[must_use]
pub fn slice_of_concat(rng: &mut Rng) -> String {
    let mut t = Text::new(rng, "f32");
    let rank = rng.range(1, 4);
    let axis = rng.range(0, rank - 1);
    let symbols = ["N", "C", "H", "W"];
    let others: Vec<String> = (0..rank as usize)
        .map(|a| if rng.chance(30) { symbols[a].to_owned() } else { rng.range(1, 3).to_string() })
        .collect();
    let mut total = 0;
    let parts: Vec<String> = (0..rng.range(1, 4))
        .map(|_| {
            let size = rng.range(0, 4);
            total += size;
            let mut shape = others.clone();
            shape[axis as usize] = if rng.chance(4) { "S".to_owned() } else { size.to_string() };
            t.input(&shape)
        })
        .collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let all = t.op("Concat", &parts, &format!("axis={}", rng.pick(&[axis, axis - rank])));
    let (mut starts, mut ends, mut axes, mut steps) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for a in 0..rank {
        if a != axis && !rng.chance(20) {
            continue;
        }
        let size = if a == axis { total } else { 3 };
        let (start, end, step) = match rng.range(0, 6) {
            0 => (-1, -i64::MAX, -1),
            1 => (0, size, 2),
            2 => (-rng.range(0, size), i64::MAX, 1),
            3 => (rng.range(0, size), -rng.range(0, 2), 1),
            _ => {
                let start = rng.range(0, size);
                (start, rng.range(start, size + 1), 1)
            }
        };
        starts.push(start);
        ends.push(end);
        axes.push(rng.pick(&[a, a - rank]));
        steps.push(step);
    }
    let (starts, ends, axes, steps) = (t.ints(&starts), t.ints(&ends), t.ints(&axes), t.ints(&steps));
    let y = t.op("Slice", &[&all, &starts, &ends, &axes, &steps], "");
    t.finish(&y)
}

/// A DOConv.
#[must_use]
pub fn do_conv(rng: &mut Rng) -> String {
    let c = rng.pick(&[1, 2, 4]);
    let x = map(rng, c);
    let n = x.spatial();
    let group = rng.divisor(c);
    let outputs = group * rng.range(1, 2);
    let s = Shape::random(rng, outputs, group, n);
    let taps: i64 = s.taps.iter().product();
    let depth = rng.pick(&[taps, taps, taps + 1, 1]);
    let dtype = float(rng);
    let mut t = Text::new(rng, dtype);
    let input = t.input(&x.dims());
    let factor = [c, taps, depth];
    let d = if rng.chance(5) { t.input(&factor.map(|n| n.to_string())) } else { t.random(&factor) };
    let w = t.random(&[outputs, c / group, depth]);
    let pads: Vec<i64> = s.begin.iter().chain(&s.end).copied().collect();
    let attributes = format!(
        "dilations={:?}, group={group}, kernel_shape={:?}, pads={pads:?}, strides={:?}",
        s.dilations, s.taps, s.strides
    );
    let b = if rng.chance(50) { t.random(&[outputs]) } else { "_".to_owned() };
    let y = t.op("DOConv", &[&input, &d, &w, &b], &attributes);
    t.finish(&y)
}
