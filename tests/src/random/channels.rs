//! Left sides of the rules about slices and concatenations before and behind convolutions.

use super::{
    Rng, Text, computed,
    conv::{Shape, bias, common_divisor, float},
    map, tensor, unbounded,
};

/// How one axis is cut.
type Bounds = (i64, i64, i64, i64);

fn cut(t: &mut Text, x: &str, bounds: &[Bounds]) -> String {
    let list = |f: &dyn Fn(&Bounds) -> i64| bounds.iter().map(f).collect::<Vec<i64>>();
    let (axes, starts, ends) = (t.ints(&list(&|b| b.0)), t.ints(&list(&|b| b.1)), t.ints(&list(&|b| b.2)));
    if bounds.iter().all(|b| b.3 == 1) && t.seed.is_multiple_of(2) {
        return t.op("Slice", &[x, &starts, &ends, &axes], "");
    }
    let steps = t.ints(&list(&|b| b.3));
    t.op("Slice", &[x, &starts, &ends, &axes, &steps], "")
}

/// A cut of `n` channels, often of whole multiples of `unit`.
fn channels(rng: &mut Rng, n: i64, unit: i64) -> Bounds {
    let axis = 1;
    if rng.chance(60) {
        let first = unit * rng.range(0, n / unit - 1);
        let count = unit * rng.range(1, (n - first) / unit);
        let (first, last) = if rng.chance(20) { (first - n, first + count) } else { (first, first + count) };
        return (axis, first, last, 1);
    }
    match rng.range(0, 3) {
        0 => (axis, -1, -i64::MAX, -1),
        1 => (axis, rng.range(0, 1), i64::MAX, 2),
        _ => {
            let first = rng.range(0, n - 1);
            (axis, first, rng.range(first + 1, n), 1)
        }
    }
}

/// Now and then another axis is cut as well, or turned round.
fn spoiled(rng: &mut Rng, bounds: Bounds) -> Vec<Bounds> {
    let mut all = vec![bounds];
    if rng.chance(25) {
        let other = rng.pick(&[(2, -1, -i64::MAX, -1), (2, 0, 1, 1), (0, 0, 1, 1), (2, 1, i64::MAX, 1)]);
        all.insert(rng.range(0, 1) as usize, other);
    }
    all
}

/// A slice of a convolution's channels.
#[must_use]
pub fn slice_of_conv(rng: &mut Rng) -> String {
    let (c, o) = (rng.pick(&[1, 2, 4, 6]), rng.pick(&[2, 3, 4, 6, 8]));
    let x = map(rng, c);
    let group = if rng.chance(40) { 1 } else { rng.divisor(common_divisor(c, o)) };
    let mut s = Shape::random(rng, o, group, x.spatial());
    if rng.chance(20) {
        s.outputs = c;
        s.group = c;
    }
    let b = bias(rng);
    let dtype = float(rng);
    let mut t = Text::new(rng, dtype);
    let input = t.input(&x.dims());
    let y = t.conv(&input, c, &s, b);
    let bounds = channels(rng, s.outputs, s.outputs / s.group);
    let bounds = spoiled(rng, bounds);
    let z = cut(&mut t, &y, &bounds);
    t.finish(&z)
}

/// A convolution of a slice of channels.
#[must_use]
pub fn conv_of_channels(rng: &mut Rng) -> String {
    let c = rng.range(2, 5);
    let x = map(rng, c);
    let first = rng.range(0, c - 1);
    let last = rng.range(first + 1, c);
    let outputs = rng.range(1, 3);
    let s = Shape::random(rng, outputs, 1, x.spatial());
    let b = bias(rng);
    let dtype = float(rng);
    let mut t = Text::new(rng, dtype);
    let input = t.input(&x.dims());
    let input = computed(rng, &mut t, input, c, x.spatial());
    let step = if rng.chance(10) { 2 } else { 1 };
    let bounds = spoiled(rng, (1, first, last, step));
    let y = cut(&mut t, &input, &bounds);
    let z = t.conv(&y, (last - first + step - 1) / step, &s, b);
    t.finish(&z)
}

/// Cuts of the spatial axes, by margins or in steps.
fn space(rng: &mut Rng, spatial: usize) -> Vec<Bounds> {
    let mut all = Vec::new();
    for a in 0..spatial {
        if a > 0 && rng.chance(40) {
            continue;
        }
        let start = rng.pick(&[0, 0, 0, 1, 1, 2]);
        let end = rng.pick(&[i64::MAX, i64::MAX, i64::MAX, -1, -2, 4, 6]);
        let step = rng.range(1, 3);
        all.push(match rng.range(0, 9) {
            0 => (a as i64 + 2, -1, -i64::MAX, -1),
            1 => (a as i64 + 2, -2, i64::MAX, 1),
            _ => (a as i64 + 2, start, end, step),
        });
    }
    if rng.chance(5) {
        all.push((1, 0, 1, 1));
    }
    all
}

/// A slice of a convolution's map.
#[must_use]
pub fn space_of_conv(rng: &mut Rng) -> String {
    let c = rng.pick(&[1, 2, 4]);
    let x = map(rng, c);
    let (outputs, group) = (rng.pick(&[2, 4]), rng.divisor(common_divisor(c, 2)));
    let mut s = Shape::random(rng, outputs, group, x.spatial());
    if rng.chance(50) {
        for a in 0..x.spatial() {
            s.begin[a] = s.reach(a);
            s.end[a] = rng.range(0, s.reach(a));
        }
    }
    let b = bias(rng);
    let dtype = float(rng);
    let mut t = Text::new(rng, dtype);
    let input = t.input(&x.dims());
    let y = t.conv(&input, c, &s, b);
    let bounds = space(rng, x.spatial());
    let z = cut(&mut t, &y, &bounds);
    t.finish(&z)
}

/// A convolution of a slice of the map.
#[must_use]
pub fn conv_of_space(rng: &mut Rng) -> String {
    let c = rng.pick(&[1, 2]);
    let x = map(rng, c);
    let (outputs, group) = (2, rng.divisor(c));
    let mut s = Shape::random(rng, outputs, group, x.spatial());
    if rng.chance(50) {
        s.begin.fill(1);
        s.end.fill(1);
    }
    let b = bias(rng);
    let dtype = float(rng);
    let mut t = Text::new(rng, dtype);
    let input = t.input(&x.dims());
    let input = computed(rng, &mut t, input, c, x.spatial());
    let bounds = space(rng, x.spatial());
    let y = cut(&mut t, &input, &bounds);
    let z = t.conv(&y, c, &s, b);
    t.finish(&z)
}

/// A convolution on a map that is smaller than its kernel, or nearly.
#[must_use]
pub fn crop_taps(rng: &mut Rng) -> String {
    let c = rng.range(1, 2);
    let mut x = map(rng, c);
    for size in &mut x.sizes {
        if size.parse::<i64>().is_ok() {
            *size = rng.range(1, 4).to_string();
        }
    }
    let group = rng.divisor(c);
    let mut s = Shape::random(rng, 2, group, x.spatial());
    for a in 0..x.spatial() {
        s.taps[a] = rng.range(1, 4);
        s.dilations[a] = rng.range(1, 3);
        s.begin[a] = rng.range(0, s.reach(a));
        s.end[a] = rng.range(0, s.reach(a));
    }
    let b = bias(rng);
    let dtype = float(rng);
    let mut t = Text::new(rng, dtype);
    let input = t.input(&x.dims());
    let y = t.conv(&input, c, &s, b);
    t.finish(&y)
}

/// A convolution of a map rearranged by blocks.
#[must_use]
pub fn blocks(rng: &mut Rng) -> String {
    let (c, block) = (rng.range(1, 2), rng.range(1, 3));
    let size = |rng: &mut Rng, name: &str| {
        if rng.chance(30) { name.to_owned() } else { (block * rng.range(1, 3)).to_string() }
    };
    let dims = ["N".to_owned(), c.to_string(), size(rng, "H"), size(rng, "W")];
    let mut s = Shape::random(rng, 2, 1, 2);
    if rng.chance(80) {
        s.dilations.fill(1);
    }
    if rng.chance(15) {
        s.group = common_divisor(c * block * block, s.outputs);
    }
    let b = bias(rng);
    let dtype = float(rng);
    let mut t = Text::new(rng, dtype);
    let input = t.input(&dims);
    let mode = rng.pick(&["DCR", "CRD"]);
    let y = t.op("SpaceToDepth", &[&input], &format!("blocksize={block}, mode=\"{mode}\""));
    let z = t.conv(&y, c * block * block, &s, b);
    t.finish(&z)
}

/// Windows that give maps of one size: of `n` branches each has its own kernel, or the lead's.
fn windows(rng: &mut Rng, lead: &Shape, room: &[i64], own: bool) -> Shape {
    let mut s = lead.clone();
    if own {
        for (a, room) in room.iter().enumerate() {
            s.taps[a] = rng.range(1, 3);
            s.begin[a] = lead.begin[a] + lead.dilations[a] * rng.range(-1, 1);
            if rng.chance(15) {
                s.dilations[a] = 3 - s.dilations[a];
            }
            if rng.chance(15) {
                s.begin[a] += 1;
            }
            s.end[a] = room + s.reach(a) - s.begin[a];
        }
    }
    s
}

/// Convolutions of one input, concatenated.
#[must_use]
pub fn cat_conv(rng: &mut Rng) -> String {
    let c = rng.range(1, 3);
    let x = map(rng, c);
    let lead = Shape::random(rng, 1, 1, x.spatial());
    let room: Vec<i64> = (0..x.spatial()).map(|a| lead.begin[a] + lead.end[a] - lead.reach(a)).collect();
    let dtype = float(rng);
    let mut t = Text::new(rng, dtype);
    let input = t.input(&x.dims());
    let input = unbounded(rng, &mut t, input, 20);
    let mut parts = Vec::new();
    for i in 0..rng.range(2, 4) {
        let own = i > 0 && rng.chance(60);
        let mut s = windows(rng, &lead, &room, own);
        s.outputs = rng.range(1, 3);
        let b = bias(rng);
        let y = t.conv(&input, c, &s, b);
        parts.push(if rng.chance(15) { t.op("Relu", &[&y], "") } else { y });
    }
    let refs: Vec<&str> = parts.iter().map(String::as_str).collect();
    let y = t.op("Concat", &refs, "axis=1");
    t.finish(&y)
}

/// Functions of each element, concatenated.
#[must_use]
pub fn cat_maps(rng: &mut Rng) -> String {
    let dtype = rng.pick(&["f32", "f64"]);
    let mut t = Text::new(rng, dtype);
    let (x, shape) = tensor(rng, &mut t, 1);
    let inputs = [x, t.input(&shape), t.input(&shape)];
    let zero = t.constant_of(dtype, &[], "[0.0]");
    let six = t.constant_of(dtype, &[], "[0.5]");
    let nine = t.constant_of(dtype, &[], "[0.75]");
    let lead = rng.range(0, 3);
    let parts: Vec<String> = (0..rng.range(2, 4))
        .map(|i| {
            let x = &inputs[i as usize % 3];
            match if rng.chance(80) { lead } else { rng.range(0, 4) } {
                0 => t.op("Relu", &[x], ""),
                1 => t.op("Clip", &[x, &zero, &six], ""),
                2 => t.op("Clip", &[x, "_", &six], ""),
                3 => t.op("Clip", &[x, &zero], ""),
                _ => t.op("Clip", &[x, &zero, &nine], ""),
            }
        })
        .collect();
    let refs: Vec<&str> = parts.iter().map(String::as_str).collect();
    let axis = rng.range(0, shape.len() as i64 - 1);
    let y = t.op("Concat", &refs, &format!("axis={axis}"));
    t.finish(&y)
}

/// Convolutions of several inputs, concatenated.
#[must_use]
pub fn cat_groups(rng: &mut Rng) -> String {
    let (c, o) = (rng.pick(&[1, 2, 4]), rng.pick(&[1, 2, 4]));
    let x = map(rng, c);
    let mut s = Shape::random(rng, o, 1, x.spatial());
    s.group = rng.divisor(common_divisor(c, o));
    let dtype = float(rng);
    let mut t = Text::new(rng, dtype);
    let inputs = [t.input(&x.dims()), t.input(&x.dims()), t.input(&x.dims())];
    let mut parts = Vec::new();
    for i in 0..rng.range(2, 3) as usize {
        let mut own = s.clone();
        if rng.chance(25) {
            match rng.range(0, 2) {
                // The same size from another place.
                0 if own.begin[0] > 0 => {
                    own.begin[0] -= 1;
                    own.end[0] += 1;
                }
                1 => own.group = rng.divisor(common_divisor(c, o)),
                _ => {
                    own.taps[0] += 1;
                    own.end[0] += own.dilations[0];
                }
            }
        }
        let b = bias(rng);
        let input = inputs[rng.range(0, 2).max(i as i64 - 1) as usize].clone();
        parts.push(t.conv(&input, c, &own, b));
    }
    let refs: Vec<&str> = parts.iter().map(String::as_str).collect();
    let y = t.op("Concat", &refs, "axis=1");
    t.finish(&y)
}

/// A convolution of concatenated maps, of which one or two are foldable.
#[must_use]
pub fn cat_in(rng: &mut Rng) -> String {
    let c = rng.range(1, 3);
    let x = map(rng, c);
    let dtype = float(rng);
    let mut t = Text::new(rng, dtype);
    let input = t.input(&x.dims());
    let outputs = rng.range(1, 2);
    let mut s = Shape::random(rng, outputs, 1, x.spatial());
    let (mut parts, mut sizes) = (vec![input.clone()], vec![c]);
    for _ in 0..rng.range(1, 2) {
        match rng.range(0, 3) {
            0 => {
                parts.push(input.clone());
                sizes.push(c);
            }
            1 => {
                parts.push(cut(&mut t, &input, &[(1, 0, 1, 1)]));
                sizes.push(1);
            }
            _ => {
                let mut point = Shape::random(rng, 2, 1, x.spatial());
                for a in 0..x.spatial() {
                    point.taps[a] = 1;
                    point.strides[a] = 1;
                    point.begin[a] = 0;
                    point.end[a] = 0;
                }
                let b = bias(rng);
                parts.push(t.conv(&input, c, &point, b));
                sizes.push(2);
            }
        }
    }
    if rng.chance(50) {
        parts.reverse();
        sizes.reverse();
    }
    let refs: Vec<&str> = parts.iter().map(String::as_str).collect();
    let cat = t.op("Concat", &refs, "axis=1");
    s.group = 1;
    let b = bias(rng);
    let y = t.conv(&cat, sizes.iter().sum(), &s, b);
    t.finish(&y)
}

/// Slices of one tensor, concatenated.
#[must_use]
pub fn cat_slices(rng: &mut Rng) -> String {
    let mut t = Text::new(rng, "f32");
    let mut shape = tensor(rng, &mut t, 1).1;
    let axis = rng.range(0, shape.len() as i64 - 1);
    let n = rng.range(2, 7);
    shape[axis as usize] = n.to_string();
    let x = t.input(&shape);
    let mut at = rng.range(0, 1);
    let mut parts = Vec::new();
    for _ in 0..rng.range(2, 3) {
        let step = if rng.chance(15) { 2 } else { 1 };
        let end = (at + rng.range(1, 2) * step).min(n);
        parts.push(cut(&mut t, &x, &[(axis, at, end, step)]));
        at = if rng.chance(25) { rng.range(0, n - 1) } else { end % n };
    }
    let refs: Vec<&str> = parts.iter().map(String::as_str).collect();
    let y = t.op("Concat", &refs, &format!("axis={axis}"));
    t.finish(&y)
}

/// A function of each element of a slice.
#[must_use]
pub fn map_of_slice(rng: &mut Rng) -> String {
    map_and_slice(rng, true)
}

/// A slice of a function of each element.
#[must_use]
pub fn slice_of_map(rng: &mut Rng) -> String {
    map_and_slice(rng, false)
}

fn map_and_slice(rng: &mut Rng, slice_first: bool) -> String {
    let mut t = Text::new(rng, "f32");
    let (x, shape) = tensor(rng, &mut t, 1);
    let axis = rng.range(0, shape.len() as i64 - 1);
    let bounds = (axis, rng.range(-2, 1), rng.pick(&[i64::MAX, 3, -1]), rng.range(1, 2));
    let six = t.constant_of("f32", &[], "[0.5]");
    let f = rng.range(0, 2);
    let apply = |t: &mut Text, x: &str| match f {
        0 => t.op("Relu", &[x], ""),
        1 => t.op("Clip", &[x, "_", &six], ""),
        _ => t.op("Clip", &[x, &six], ""),
    };
    let y = if slice_first {
        let y = cut(&mut t, &x, &[bounds]);
        apply(&mut t, &y)
    } else {
        let y = apply(&mut t, &x);
        cut(&mut t, &y, &[bounds])
    };
    t.finish(&y)
}
