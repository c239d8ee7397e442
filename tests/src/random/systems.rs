//! Left sides of the rules about Ghost modules, self-calibrated and over-parameterised convolutions.

use super::{
    MapShape, Rng, Text,
    conv::{Bias, Shape, bias, common_divisor, float},
    map,
};

/// A convolution that keeps sizes: stride 1, padding that makes up for the reach.
fn keeping(rng: &mut Rng, outputs: i64, group: i64, spatial: usize) -> Shape {
    let mut s = Shape::random(rng, outputs, group, spatial);
    s.strides.fill(1);
    for a in 0..spatial {
        s.taps[a] = s.taps[a].min(3);
        s.begin[a] = rng.range(0, s.reach(a));
        s.end[a] = s.reach(a) - s.begin[a];
    }
    s
}

impl Text {
    /// The function of this name; the value itself for an empty one.
    fn function(&mut self, name: &str, x: &str) -> String {
        if name.is_empty() { x.to_owned() } else { self.op(name, &[x], "") }
    }

    /// Channels from `start` to before `end`, in one of several spellings.
    fn channels(&mut self, rng: &mut Rng, x: &str, rank: i64, (start, end, size): (i64, i64, i64)) -> String {
        if rng.chance(25) {
            let indices = self.ints(&(start..end).collect::<Vec<i64>>());
            return self.op("Gather", &[x, &indices], "axis=1");
        }
        let start = if start > 0 && rng.chance(30) { start - size } else { start };
        let end = if end == size { rng.pick(&[end, i64::MAX]) } else { rng.pick(&[end, end - size]) };
        let axis = rng.pick(&[1, 1 - rank]);
        let (starts, ends, axes) = (self.ints(&[start]), self.ints(&[end]), self.ints(&[axis]));
        if rng.chance(50) {
            let steps = self.ints(&[1]);
            return self.op("Slice", &[x, &starts, &ends, &axes, &steps], "");
        }
        self.op("Slice", &[x, &starts, &ends, &axes], "")
    }
}

/// A Ghost module, or nearly.
#[must_use]
pub fn ghost(rng: &mut Rng) -> String {
    let (c, p, maps) = (rng.range(1, 3), rng.range(1, 4), rng.pick(&[1, 1, 1, 2, 3]));
    let x: MapShape = map(rng, c);
    let n = x.spatial();
    let rank = n as i64 + 2;
    let group = rng.divisor(common_divisor(c, p));
    let mut primary = Shape::random(rng, p, group, n);
    let spoiled = rng.range(0, 9);
    // The cheap one may read some of the channels only.
    let read = if rng.chance(20) { rng.range(1, p) } else { p };
    let mut cheap = keeping(rng, read * maps, read, n);
    if spoiled == 0 {
        primary = Shape { taps: vec![1; n], strides: vec![1; n], begin: vec![0; n], end: vec![0; n], ..primary };
        if let Ok(size) = x.sizes[0].parse::<i64>() {
            cheap.strides[0] = 2;
            cheap.begin[0] = (size - 1 + cheap.reach(0)).max(0) / 2;
            cheap.end[0] = size - 1 + cheap.reach(0) - cheap.begin[0];
        }
    }
    let (mut f, mut g) = if rng.chance(60) { ("Relu", "Relu") } else { ("", "") };
    if spoiled == 1 {
        f = rng.pick(&["", "Relu", "Sigmoid", "Tanh"]);
        g = rng.pick(&["", "Relu", "Sigmoid", "Tanh"]);
    }
    let (b1, b2, dtype) = (bias(rng), bias(rng), float(rng));
    let mut t = Text::new(rng, dtype);
    let input = t.input(&x.dims());
    let y = t.conv(&input, c, &primary, b1);
    let y = t.function(f, &y);
    let first = if read < p { t.channels(rng, &y, rank, (0, read, p)) } else { y.clone() };
    let mut z = t.conv(&first, read, &cheap, b2);
    // The first results alone may be used.
    let mut made = read * maps;
    let cut = rng.range(0, 9);
    let mut first_of = |rng: &mut Rng, t: &mut Text, z: &str| {
        let count = rng.range(1, made);
        let z = t.channels(rng, z, rank, (0, count, made));
        made = count;
        z
    };
    if cut == 0 {
        z = first_of(rng, &mut t, &z);
    }
    z = t.function(g, &z);
    if cut == 1 {
        z = first_of(rng, &mut t, &z);
    }
    let mut parts = vec![y.clone(), z.clone()];
    match spoiled {
        2 => parts.reverse(),
        3 => parts.push(y),
        _ => {}
    }
    let axis = if spoiled == 4 { rng.range(0, rank - 1) } else { 1 };
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let all = t.op("Concat", &parts, &format!("axis={axis}"));
    let total = p + made;
    let kept = match rng.range(0, 3) {
        0 => rng.range(1, total),
        1 => total - 1,
        _ => total,
    };
    let out = if kept == total || kept == 0 || axis != 1 {
        all
    } else {
        let start = i64::from(rng.chance(10));
        t.channels(rng, &all, rank, (start, kept.max(start + 1), total))
    };
    t.finish(&out)
}

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
    let all = t.op("Concat", &parts, &format!("axis={axis}"));
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

/// The attributes of a Resize to nearest elements.
fn resize(coordinates: &str, nearest: &str) -> String {
    format!(
        "antialias=0, axes=[], coordinate_transformation_mode=\"{coordinates}\", cubic_coeff_a=-0.75, exclude_outside=0, \
         extrapolation_value=0.0, keep_aspect_ratio_policy=\"stretch\", mode=\"nearest\", nearest_mode=\"{nearest}\""
    )
}

/// What a self-calibrated convolution is spelt with.
struct Calibrated {
    x: MapShape,
    r: i64,
    spoiled: i64,
}

impl Calibrated {
    fn random(rng: &mut Rng) -> Calibrated {
        let c = rng.pick(&[1, 2, 4]);
        let r = rng.pick(&[1, 2, 2, 3]);
        let mut x = map(rng, c);
        for size in &mut x.sizes {
            if let Ok(n) = size.parse::<i64>() {
                *size = n.max(r + rng.range(0, 2)).to_string();
            } else if rng.chance(30) {
                // Tiles that fit at every size.
                *size = format!("{r}*{size}");
            }
        }
        Calibrated { x, r, spoiled: rng.range(0, 13) }
    }

    /// The pooled map.
    fn pool(&self, rng: &mut Rng, t: &mut Text, x: &str) -> String {
        let (n, r) = (self.x.spatial(), self.r);
        let mut kernel = vec![r; n];
        let mut strides = vec![r; n];
        let mut pads = vec![0; 2 * n];
        let mut dilations = vec![1; n];
        match self.spoiled {
            0 => kernel[0] += 1,
            1 => strides[0] += 1,
            2 => pads[rng.range(0, 2 * n as i64 - 1) as usize] = 1,
            3 => dilations[n - 1] = 2,
            _ => {}
        }
        let ceil = rng.range(0, 3) / 3;
        let attributes = format!(
            "auto_pad=\"NOTSET\", ceil_mode={ceil}, count_include_pad={}, dilations={dilations:?}, kernel_shape={kernel:?}, \
             pads={pads:?}, strides={strides:?}",
            rng.range(0, 1)
        );
        t.op("AveragePool", &[x], &attributes)
    }

    /// The small map at the sizes of `x`.
    fn up(&self, rng: &mut Rng, t: &mut Text, small: &str, x: &str) -> String {
        let modes = if rng.chance(50) {
            ("asymmetric", "floor")
        } else {
            (
                rng.pick(&["asymmetric", "half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "align_corners"]),
                rng.pick(&["floor", "floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]),
            )
        };
        // The other roundings of this one move even what keeps its size, or do not: programs differ.
        let modes = if modes.0 == "tf_half_pixel_for_nn" { (modes.0, "floor") } else { modes };
        let attributes = resize(modes.0, modes.1);
        if rng.chance(30) {
            let scales: Vec<f64> = (0..self.x.spatial() + 2).map(|a| if a < 2 { 1.0 } else { self.r as f64 }).collect();
            let scales = t.constant_of("f32", &[scales.len() as i64], &format!("{scales:?}"));
            return t.op("Resize", &[small, "_", &scales], &attributes);
        }
        let sizes = if rng.chance(60) {
            t.op("Shape", &[x], "start=0")
        } else {
            let (a, b) = (t.op("Shape", &[small], "end=2, start=0"), t.op("Shape", &[x], "start=2"));
            t.op("Concat", &[&a, &b], "axis=0")
        };
        t.op("Resize", &[small, "_", "_", &sizes], &attributes)
    }
}

/// A self-calibrated convolution, or nearly.
#[must_use]
pub fn self_calibrated(rng: &mut Rng) -> String {
    let s = Calibrated::random(rng);
    let (c, n) = (s.x.channels, s.x.spatial());
    let group = rng.divisor(c);
    let one = keeping(rng, c, group, n);
    let (mut small, mut body) = (one.clone(), one.clone());
    let mut last = one.clone();
    last.outputs = group * rng.range(1, 2);
    last.strides = (0..n).map(|_| rng.range(1, 2)).collect();
    let other = if rng.chance(50) { &mut small } else { &mut body };
    match s.spoiled {
        4 => *other = keeping(rng, c, group, n),
        5 => last.begin[0] += 1,
        6 => {
            other.group = 1;
            last.group = rng.divisor(common_divisor(c, last.outputs));
        }
        7 => last.dilations[0] = 3 - last.dilations[0],
        _ => {}
    }
    let dtype = float(rng);
    let mut t = Text::new(rng, dtype);
    let x = t.input(&s.x.dims());
    let another = if s.spoiled > 7 { t.op("Relu", &[&x], "") } else { x.clone() };
    let [mut pooled, mut added, mut convolved] = [x.clone(), x.clone(), x.clone()];
    match s.spoiled {
        8 => pooled = another,
        9 => added = another,
        10 => convolved = another,
        _ => {}
    }
    let biases: Vec<Bias> = (0..3).map(|_| bias(rng)).collect();
    let y = s.pool(rng, &mut t, &pooled);
    let y = t.conv(&y, c, &small, biases[0]);
    let y = s.up(rng, &mut t, &y, &added);
    let both = |rng: &mut Rng, t: &mut Text, op: &str, a: &str, b: &str| {
        if rng.chance(50) { t.op(op, &[a, b], "") } else { t.op(op, &[b, a], "") }
    };
    let y = both(rng, &mut t, "Add", &added, &y);
    let gate = t.op("Sigmoid", &[&y], "");
    let y = t.conv(&convolved, c, &body, biases[1]);
    let y = both(rng, &mut t, "Mul", &y, &gate);
    let y = t.conv(&y, c, &last, biases[2]);
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
