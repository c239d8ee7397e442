//! Left sides of the rules about permuted and grouped channels.

use super::{
    Rng, Text,
    conv::{Shape, bias, common_divisor, float},
    map,
};

/// Channels of `x` (of these sizes) picked in some order: a permutation, or nearly.
fn pick(rng: &mut Rng, t: &mut Text, x: &str, dims: &[String]) -> String {
    let c: i64 = dims[1].parse().unwrap_or(1);
    let fixed: Option<Vec<i64>> = dims[2..].iter().map(|d| d.parse().ok()).collect();
    match (rng.range(0, 2), fixed) {
        (0, Some(sizes)) => {
            let g = rng.divisor(c);
            let split: Vec<i64> = [0, g, c / g].into_iter().chain(sizes.iter().copied()).collect();
            let joined: Vec<i64> = [0, c].into_iter().chain(sizes.iter().copied()).collect();
            let mut perm: Vec<i64> = (0..split.len() as i64).collect();
            perm.swap(1, 2);
            let (split, joined) = (t.ints(&split), t.ints(&joined));
            let y = t.op("Reshape", &[x, &split], "allowzero=0");
            let y = t.op("Transpose", &[&y], &format!("perm={perm:?}"));
            t.op("Reshape", &[&y, &joined], "allowzero=0")
        }
        (1, _) if c > 1 => {
            let at = rng.range(1, c - 1);
            let axis = t.ints(&[1]);
            let (zero, at, end) = (t.ints(&[0]), t.ints(&[at]), t.ints(&[i64::MAX]));
            let (first, second) = if rng.chance(70) {
                (t.op("Slice", &[x, &at, &end, &axis], ""), t.op("Slice", &[x, &zero, &at, &axis], ""))
            } else {
                let two = t.ints(&[2]);
                let one = t.ints(&[1]);
                (t.op("Slice", &[x, &one, &end, &axis, &two], ""), t.op("Slice", &[x, &zero, &end, &axis, &two], ""))
            };
            t.op("Concat", &[&first, &second], "axis=1")
        }
        _ => {
            let mut left: Vec<i64> = (0..c).collect();
            let mut order = Vec::new();
            while !left.is_empty() {
                order.push(left.remove(rng.range(0, left.len() as i64 - 1) as usize));
            }
            if rng.chance(40) {
                order[0] = rng.range(-c, c - 1);
            }
            let order = t.ints(&order);
            t.op("Gather", &[x, &order], "axis=1")
        }
    }
}

/// A convolution of permuted channels.
#[must_use]
pub fn conv_of_permuted(rng: &mut Rng) -> String {
    let c = rng.pick(&[2, 4, 6]);
    let x = map(rng, c);
    let outputs = rng.range(1, 2);
    let s = Shape::random(rng, outputs, 1, x.spatial());
    let b = bias(rng);
    let dtype = float(rng);
    let mut t = Text::new(rng, dtype);
    let input = t.input(&x.dims());
    let y = pick(rng, &mut t, &input, &x.dims());
    let z = t.conv(&y, c, &s, b);
    t.finish(&z)
}

/// The outputs of a convolution in another order.
#[must_use]
pub fn permuted_conv(rng: &mut Rng) -> String {
    let (c, o) = (rng.range(1, 3), rng.pick(&[2, 4, 6]));
    let x = map(rng, c);
    let groups = if rng.chance(30) { rng.pick(&[1, c]) } else { 1 };
    let mut s = Shape::random(rng, o, if o % groups == 0 { groups } else { 1 }, x.spatial());
    for a in 0..x.spatial() {
        s.strides[a] = 1;
        s.begin[a] = 0;
        s.end[a] = s.reach(a);
    }
    let b = bias(rng);
    let dtype = float(rng);
    let mut t = Text::new(rng, dtype);
    let input = t.input(&x.dims());
    let y = t.conv(&input, c, &s, b);
    let mut dims = x.dims();
    dims[1] = o.to_string();
    let z = pick(rng, &mut t, &y, &dims);
    t.finish(&z)
}

/// Activations in another order.
#[must_use]
pub fn permuted_map(rng: &mut Rng) -> String {
    let c = rng.pick(&[2, 4, 6]);
    let x = map(rng, c);
    let mut t = Text::new(rng, "f32");
    let input = t.input(&x.dims());
    let y = t.op("Relu", &[&input], "");
    let z = pick(rng, &mut t, &y, &x.dims());
    t.finish(&z)
}

/// A convolution of one group whose kernel is 0 outside of blocks, or nearly.
#[must_use]
pub fn block_diagonal(rng: &mut Rng) -> String {
    let (c, o) = (rng.pick(&[2, 4, 6]), rng.pick(&[2, 4, 6]));
    let x = map(rng, c);
    let mut s = Shape::random(rng, o, 1, x.spatial());
    s.group = 1;
    let g = rng.divisor(common_divisor(c, o)).max(2);
    let taps: i64 = s.taps.iter().product();
    let odd = if rng.chance(30) { rng.range(1, o * c - 2) } else { -1 };
    let mut values = Vec::new();
    for i in 0..o * c {
        let (row, column) = (i / c, i % c);
        let inside = row * g / o == column * g / c || i == odd;
        values.extend(
            (0..taps).map(|_| if inside { f64::from(i32::try_from(rng.range(1, 9)).unwrap_or(1)) / 4.0 } else { 0.0 }),
        );
    }
    let dtype = float(rng);
    let mut t = Text::new(rng, dtype);
    let input = t.input(&x.dims());
    let shape: Vec<i64> = [o, c].into_iter().chain(s.taps.iter().copied()).collect();
    let w = t.constant_of(dtype, &shape, &format!("{values:?}"));
    let pads: Vec<i64> = s.begin.iter().chain(&s.end).copied().collect();
    let attributes =
        format!("auto_pad=\"NOTSET\", dilations={:?}, group=1, pads={pads:?}, strides={:?}", s.dilations, s.strides);
    let bias = rng.chance(50).then(|| t.random(&[o]));
    let operands: Vec<&str> = [&input, &w].into_iter().chain(&bias).map(String::as_str).collect();
    let y = t.op("Conv", &operands, &attributes);
    t.finish(&y)
}
