//! Space to depth, spelled out in operators that move elements.

use super::{
    Rng, Text,
    conv::{Shape, bias, float},
};

/// Blocks of a map rearranged into channels.
#[must_use]
pub fn space_to_depth(rng: &mut Rng) -> String {
    let dtype = float(rng);
    let mut t = Text::new(rng, dtype);
    let (y, _) = rearranged(rng, &mut t);
    t.finish(&y)
}

/// A convolution on blocks of a map rearranged into channels.
#[must_use]
pub fn conv_of_blocks(rng: &mut Rng) -> String {
    let mut s = Shape::random(rng, 2, 1, 2);
    if rng.chance(70) {
        s.dilations.fill(1);
    }
    let b = bias(rng);
    let dtype = float(rng);
    let mut t = Text::new(rng, dtype);
    let (y, channels) = rearranged(rng, &mut t);
    if channels % 2 == 0 && rng.chance(10) {
        s.group = 2;
    }
    let z = t.conv(&y, channels, &s, b);
    t.finish(&z)
}

/// The rearranged map and its channels: strided slices, some of which take neighbours, or views and a transposition.
fn rearranged(rng: &mut Rng, t: &mut Text) -> (String, i64) {
    let (c, b) = (rng.range(1, 3), rng.pick(&[2, 2, 2, 3]));
    let (rows, columns) = (rng.range(1, 3), rng.range(1, 3));
    let batch = if rng.chance(40) { "N".to_owned() } else { rng.range(1, 2).to_string() };
    let views = rng.chance(30);
    // An open size is padded to a multiple, or taken for one.
    let open = !views && rng.chance(20);
    let height = if open { "H".to_owned() } else { (b * rows).to_string() };
    let x = t.input(&[batch, c.to_string(), height, (b * columns).to_string()]);
    let y = if views {
        let target = t.ints(&[0, c, rows, b, columns, b]);
        let split = t.op("Reshape", &[&x, &target], "allowzero=0");
        let perm = rng.pick(&["[0, 3, 5, 1, 2, 4]", "[0, 1, 3, 5, 2, 4]", "[0, 5, 3, 1, 2, 4]", "[0, 3, 1, 5, 2, 4]"]);
        let turned = t.op("Transpose", &[&split], &format!("perm={perm}"));
        let target = t.ints(&[0, c * b * b, rows, columns]);
        t.op("Reshape", &[&turned, &target], "allowzero=0")
    } else {
        let neighbours = rng.chance(25) && !open;
        let mut places: Vec<i64> = (0..b * b).collect();
        (1..places.len()).for_each(|k| places.swap(k, rng.range(0, k as i64) as usize));
        let parts: Vec<String> = places
            .into_iter()
            .map(|place| {
                let (i, j) = (place / b, place % b);
                let from = if open && i > 0 {
                    let pads = t.ints(&[0, 0, 0, 0, 0, 0, i, 0]);
                    t.op("Pad", &[&x, &pads], "mode=\"constant\"")
                } else {
                    x.clone()
                };
                let down = if neighbours { (i, i + rows, 1) } else { (i, i64::MAX, b) };
                if rng.chance(50) {
                    let down = cut(t, &from, &[(2, down)]);
                    cut(t, &down, &[(3, (j, i64::MAX, b))])
                } else {
                    cut(t, &from, &[(2, down), (3, (j, i64::MAX, b))])
                }
            })
            .collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        t.op("Concat", &parts, "axis=1")
    };
    (y, c * b * b)
}

fn cut(t: &mut Text, x: &str, along: &[(i64, (i64, i64, i64))]) -> String {
    let list = |t: &mut Text, f: fn(&(i64, (i64, i64, i64))) -> i64| t.ints(&along.iter().map(f).collect::<Vec<_>>());
    let starts = list(t, |c| c.1.0);
    let ends = list(t, |c| c.1.1);
    let axes = list(t, |c| c.0);
    let steps = list(t, |c| c.1.2);
    t.op("Slice", &[x, &starts, &ends, &axes, &steps], "")
}
