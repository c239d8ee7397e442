//! Index arithmetic over an open axis, most of which turns at some size.

use super::{Rng, Text};

/// A graph and the sizes of `H` around which its indices may turn.
pub struct Turning {
    /// The graph as text.
    pub text: String,
    /// Values of `H` to try.
    pub sizes: Vec<i64>,
}

/// Blocks of rows, or a window over positions, whose indices are computed over an open axis: the plain ones of a model, or ones
/// that turn at a random number between 1 and 500.
#[must_use]
pub fn turning(rng: &mut Rng) -> Turning {
    let c = rng.range(1, 500);
    let mut t = Text::new(rng, "f32");
    let blocks = rng.chance(50);
    let (rows, factor) = if blocks { ("2*H", 2) } else { ("H", 1) };
    let x = t.input(&["1".to_owned(), "2".to_owned(), rows.to_owned(), "2".to_owned()]);
    let size = t.op("Shape", &[&x], "start=2, end=3");
    let none = t.ints(&[0]);
    let scalar = |t: &mut Text, n: i64| t.constant_of("i64", &[], &format!("[{n}]"));
    let (zero, one, turn) = (scalar(&mut t, 0), scalar(&mut t, 1), scalar(&mut t, c));
    let count = t.op("Squeeze", &[&size, &none], "");
    let positions = t.op("Range", &[&zero, &count, &one], "");
    let indices = index(rng, &mut t, &positions, &count, [&zero, &turn], c);
    let y = if blocks {
        let moved = if rng.chance(30) { parts(rng, &mut t, &x, c) } else { x };
        let g = t.op("Gather", &[&moved, &indices], "axis=2");
        focus(&mut t, &g)
    } else {
        let kernel = t.input(&["1", "3", "H", "2"].map(str::to_owned));
        window(rng, &mut t, &x, &kernel, &indices, &size)
    };
    let around = [c / factor, 2 * c / factor, 4 * c];
    let mut sizes: Vec<i64> = around.iter().flat_map(|n| n - 1..=n + 1).chain([1, 2, 3, 31, 640]).collect();
    sizes.retain(|n| (1..1000).contains(n));
    sizes.sort_unstable();
    sizes.dedup();
    Turning { text: t.finish(&y), sizes }
}

/// Positions within the axis, one for each.
fn index(rng: &mut Rng, t: &mut Text, r: &str, count: &str, [zero, turn]: [&str; 2], c: i64) -> String {
    let far = t.ints(&[i64::MAX]);
    let begin = t.ints(&[0]);
    match rng.range(0, 15) {
        0 => t.op("Min", &[r, turn], ""),
        1 => t.op("Mod", &[r, turn], "fmod=0"),
        2 => t.op("Clip", &[r, zero, turn], ""),
        3 => t.op("Div", &[r, turn], ""),
        4 => {
            let below = t.op("Less", &[r, turn], "");
            t.op("Where", &[&below, r, zero], "")
        }
        5 => {
            // The first c positions, and the others from behind.
            let (end, back, down) = (t.ints(&[c]), t.ints(&[c - 1]), t.ints(&[-1]));
            let first = t.op("Slice", &[r, &begin, &end, &begin], "");
            let rest = t.op("Slice", &[r, &far, &back, &begin, &down], "");
            t.op("Concat", &[&first, &rest], "axis=0")
        }
        6 => {
            // Turned by how often c goes into the size.
            let times = t.op("Div", &[count, turn], "");
            let shifted = t.op("Add", &[r, &times], "");
            t.op("Mod", &[&shifted, count], "fmod=0")
        }
        7 => {
            let times = t.op("Div", &[r, turn], "");
            let (whole, rest) = (t.op("Mul", &[&times, turn], ""), t.op("Mod", &[r, turn], "fmod=0"));
            t.op("Add", &[&whole, &rest], "")
        }
        8 => {
            let most = t.op("Max", &[count, turn], "");
            let over = t.op("Sub", &[&most, turn], "");
            let least = t.op("Min", &[&over, zero], "");
            t.op("Add", &[r, &least], "")
        }
        9 => {
            let end = t.ints(&[c]);
            let (first, rest) =
                (t.op("Slice", &[r, &begin, &end, &begin], ""), t.op("Slice", &[r, &end, &far, &begin], ""));
            let parts = if rng.chance(50) { [&first, &rest] } else { [&rest, &first] };
            t.op("Concat", &[parts[0], parts[1]], "axis=0")
        }
        10 => {
            let offset = t.op("Mul", &[turn, zero], "");
            t.op("Add", &[&offset, r], "")
        }
        11 => t.op("Add", &[r, zero], ""),
        _ => r.to_owned(),
    }
}

/// The same rows in two parts, in their order or in another.
fn parts(rng: &mut Rng, t: &mut Text, x: &str, c: i64) -> String {
    let (begin, end, far, axis) = (t.ints(&[0]), t.ints(&[c]), t.ints(&[i64::MAX]), t.ints(&[2]));
    let first = t.op("Slice", &[x, &begin, &end, &axis], "");
    let rest = t.op("Slice", &[x, &end, &far, &axis], "");
    let parts = if rng.chance(50) { [&first, &rest] } else { [&rest, &first] };
    t.op("Concat", &[parts[0], parts[1]], "axis=2")
}

/// Blocks of 2 by 2 as channels.
fn focus(t: &mut Text, x: &str) -> String {
    let (far, axes, steps) = (t.ints(&[i64::MAX, i64::MAX]), t.ints(&[2, 3]), t.ints(&[2, 2]));
    let parts: Vec<String> = [[0, 0], [1, 0], [0, 1], [1, 1]]
        .iter()
        .map(|place| {
            let starts = t.ints(place);
            t.op("Slice", &[x, &starts, &far, &axes, &steps], "")
        })
        .collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    t.op("Concat", &parts, "axis=1")
}

/// Three taps along axis 2, each weighed by its own channel of the kernel map.
fn window(rng: &mut Rng, t: &mut Text, x: &str, kernel: &str, indices: &str, size: &str) -> String {
    let pads = t.ints(&[0, 0, 1, 0, 0, 0, 1, 0]);
    let padded = t.op("Pad", &[x, &pads], "mode=\"constant\"");
    let first = t.ints(&[0]);
    let row = t.op("Unsqueeze", &[indices, &first], "");
    let taps = t.constant_of("i64", &[3, 1], "[0, 1, 2]");
    let all = if rng.chance(50) { t.op("Add", &[&row, &taps], "") } else { t.op("Add", &[&taps, &row], "") };
    let neighbours = t.op("Gather", &[&padded, &all], "axis=2");
    // [1, 2, 3, H, 2] and [1, 1, 3, H, 2].
    let (lead, last) = (t.ints(&[1, 1, 3]), t.ints(&[2]));
    let shape = t.op("Concat", &[&lead, size, &last], "axis=0");
    let weights = t.op("Reshape", &[kernel, &shape], "allowzero=0");
    let product = t.op("Mul", &[&neighbours, &weights], "");
    let axis = t.ints(&[2]);
    t.op("ReduceSum", &[&product, &axis], "keepdims=0, noop_with_empty_axes=0")
}
