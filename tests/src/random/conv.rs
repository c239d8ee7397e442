//! Left sides of the rules about convolutions.

use super::{MapShape, Rng, Text, map, unbounded};

/// Attributes of a convolution along each axis.
#[derive(Clone)]
pub(super) struct Shape {
    pub(super) outputs: i64,
    pub(super) group: i64,
    pub(super) taps: Vec<i64>,
    pub(super) strides: Vec<i64>,
    pub(super) dilations: Vec<i64>,
    pub(super) begin: Vec<i64>,
    pub(super) end: Vec<i64>,
}

impl Shape {
    pub(super) fn random(rng: &mut Rng, outputs: i64, group: i64, spatial: usize) -> Shape {
        let pointwise = rng.chance(25);
        let plain = rng.chance(40);
        let mut each = |f: &mut dyn FnMut(&mut Rng) -> i64| (0..spatial).map(|_| f(rng)).collect::<Vec<i64>>();
        let most = if spatial == 3 { 3 } else { 4 };
        Shape {
            outputs,
            group,
            taps: each(&mut |r| if pointwise { 1 } else { r.range(1, most) }),
            strides: each(&mut |r| if plain { 1 } else { r.range(1, 3) }),
            dilations: each(&mut |r| r.range(1, 2)),
            begin: each(&mut |r| r.pick(&[0, 0, 1, 2])),
            end: each(&mut |r| r.pick(&[0, 0, 1, 2])),
        }
    }

    /// How far the last tap lies behind the first along an axis.
    pub(super) fn reach(&self, a: usize) -> i64 {
        self.dilations[a] * (self.taps[a] - 1)
    }
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Bias {
    None,
    Zero,
    Random,
}

impl Text {
    pub(super) fn conv(&mut self, x: &str, channels: i64, s: &Shape, bias: Bias) -> String {
        let kernel: Vec<i64> = [s.outputs, channels / s.group].into_iter().chain(s.taps.iter().copied()).collect();
        let w = self.random(&kernel);
        let b = match bias {
            Bias::None => "_".to_owned(),
            Bias::Zero => self.constant_of(self.dtype, &[s.outputs], "zeros"),
            Bias::Random => self.random(&[s.outputs]),
        };
        let pads: Vec<i64> = s.begin.iter().chain(&s.end).copied().collect();
        let attributes = format!(
            "auto_pad=\"NOTSET\", dilations={:?}, group={}, pads={pads:?}, strides={:?}",
            s.dilations, s.group, s.strides
        );
        // A hole at the end may be left out.
        let operands = if b == "_" && self.seed.is_multiple_of(2) { vec![x, &w] } else { vec![x, &w, &b] };
        self.op("Conv", &operands, &attributes)
    }
}

pub(super) fn float(rng: &mut Rng) -> &'static str {
    rng.pick(&["f32", "f32", "f32", "f64", "f16", "bf16"])
}

pub(super) fn bias(rng: &mut Rng) -> Bias {
    rng.pick(&[Bias::None, Bias::None, Bias::Zero, Bias::Random, Bias::Random])
}

pub(super) fn common_divisor(a: i64, b: i64) -> i64 {
    (1..=a).filter(|d| a % d == 0 && b % d == 0).max().unwrap_or(1)
}

/// A convolution behind a convolution.
#[must_use]
pub fn chain(rng: &mut Rng) -> String {
    // Numbers of channels with several divisors, so that groups nest in either direction.
    let (c, m, o) = (rng.pick(&[1, 2, 3, 4]), rng.pick(&[1, 2, 4, 6]), rng.pick(&[1, 2, 3, 4]));
    let x = map(rng, c);
    let g1 = if rng.chance(50) { 1 } else { rng.divisor(common_divisor(c, m)) };
    let g2 = if rng.chance(50) { 1 } else { rng.divisor(common_divisor(m, o)) };
    let mut first = Shape::random(rng, m, g1, x.spatial());
    let mut second = Shape::random(rng, o, g2, x.spatial());
    match rng.range(0, 5) {
        // No padding behind: the usual case that composes.
        0 | 1 => {
            second.begin.fill(0);
            second.end.fill(0);
        }
        // A pointwise first one, whose zeros go on.
        2 => {
            first.taps.fill(1);
            first.begin.fill(0);
            first.end.fill(0);
        }
        // Padding so wide that the first one's windows run out of the map.
        3 => {
            for a in 0..x.spatial() {
                first.begin[a] = first.reach(a);
                first.end[a] = first.reach(a);
            }
        }
        // Cropping.
        4 => {
            second.begin[0] = -1;
            first.end[0] = rng.range(-1, 1);
        }
        _ => {}
    }
    let (b1, b2) = (bias(rng), bias(rng));
    let dtype = float(rng);
    let mut t = Text::new(rng, dtype);
    let input = t.input(&x.dims());
    let input = unbounded(rng, &mut t, input, 30);
    let y = t.conv(&input, c, &first, b1);
    let z = t.conv(&y, m, &second, b2);
    t.finish(&z)
}

/// Two to four branches of one input, added up in a random tree.
#[must_use]
pub fn branches(rng: &mut Rng) -> String {
    let c = rng.pick(&[1, 2, 4]);
    let o = if rng.chance(60) { c } else { rng.pick(&[1, 2, 4]) };
    let x = map(rng, c);
    let n = x.spatial();
    let mut lead = Shape::random(rng, o, 1, n);
    let same = rng.chance(60);
    if same {
        lead.strides.fill(1);
        for a in 0..n {
            lead.end[a] = lead.reach(a) - lead.begin[a];
        }
    }
    let dtype = float(rng);
    let mut t = Text::new(rng, dtype);
    let mut input = t.input(&x.dims());
    if rng.chance(25) {
        // What the convolutions read may be a sum as well.
        let other = t.input(&x.dims());
        input = t.op("Add", &[&input, &other], "");
    }
    let input = unbounded(rng, &mut t, input, 20);
    // By how much padding exceeds the reach decides the size of the result.
    let room: Vec<i64> = (0..n).map(|a| lead.begin[a] + lead.end[a] - lead.reach(a)).collect();
    let spoiled = rng.range(0, 5);
    let mut leaves = Vec::new();
    for i in 0..rng.range(2, 4) {
        let mut s = lead.clone();
        s.group = rng.divisor(common_divisor(c, o));
        if i > 0 {
            let pointwise = rng.chance(30);
            for (a, room) in room.iter().enumerate() {
                s.taps[a] = if pointwise { 1 } else { rng.range(1, 4) };
                if s.taps[a] == 1 && rng.chance(50) {
                    s.dilations[a] = rng.range(1, 2);
                }
                // A beginning on the lead's grid, and the end that gives the same size.
                s.begin[a] = lead.begin[a] + lead.dilations[a] * rng.range(-1, 1);
                s.end[a] = room + s.reach(a) - s.begin[a];
            }
            match spoiled {
                0 => s.dilations[0] = 3 - s.dilations[0],
                1 => {
                    s.begin[0] += 1;
                    s.end[0] -= 1;
                }
                2 if rng.chance(40) => s.strides[0] += 1,
                // A single channel or a single position, which the sum broadcasts.
                3 if rng.chance(50) => {
                    s.outputs = 1;
                    s.group = 1;
                }
                4 if rng.chance(50) => {
                    if let Ok(size) = x.sizes[0].parse::<i64>() {
                        s.taps[0] = size.max(1);
                        s.dilations[0] = 1;
                        s.begin[0] = 0;
                        s.end[0] = 0;
                    }
                }
                _ => {}
            }
        }
        let b = bias(rng);
        leaves.push(t.conv(&input, c, &s, b));
    }
    if o == c && rng.chance(50) {
        leaves.push(input.clone());
    }
    if o == c && same && rng.chance(30) {
        leaves.push(t.op("Relu", &[&input], ""));
    }
    while leaves.len() > 1 {
        let a = leaves.remove(rng.range(0, leaves.len() as i64 - 1) as usize);
        let b = leaves.remove(rng.range(0, leaves.len() as i64 - 1) as usize);
        let sum = t.op(if rng.chance(70) { "Add" } else { "Sub" }, &[&a, &b], "");
        leaves.push(sum);
    }
    let y = leaves.remove(0);
    t.finish(&y)
}

/// A BatchNormalization.
#[must_use]
pub fn batch_norm(rng: &mut Rng) -> String {
    let c = rng.range(1, 4);
    let mut x = map(rng, c);
    may_be_empty(rng, &mut x);
    let mut t = Text::new(rng, "f32");
    let input = if rng.chance(5) { t.input(&[x.batch.clone(), c.to_string()]) } else { t.input(&x.dims()) };
    let spoiled = rng.chance(40);
    let list = |v: f64| format!("{:?}", vec![v; c as usize]);
    let gamma = if spoiled && rng.chance(50) { t.constant_of("f32", &[c], &list(3e6)) } else { t.random(&[c]) };
    let (beta, mean) = (t.random(&[c]), t.random(&[c]));
    let variance = if spoiled {
        let v = rng.pick(&[-1.0, 0.0, 1e-12]);
        t.constant_of("f32", &[c], &list(v))
    } else {
        t.positive(&[c])
    };
    let epsilon = if spoiled { rng.pick(&["0.0", "1e-15"]) } else { "1e-5" };
    let y = t.op("BatchNormalization", &[&input, &gamma, &beta, &mean, &variance], &format!("epsilon={epsilon}"));
    t.finish(&y)
}

/// Makes a size of a map one that may be 0, sometimes.
fn may_be_empty(rng: &mut Rng, x: &mut MapShape) {
    if rng.chance(20)
        && let Some(size) = x.sizes.first_mut()
    {
        *size = "H - 1".into();
    }
}

/// A map and a constant under one of `kinds`, the constant in one of many shapes.
#[must_use]
pub fn per_channel(rng: &mut Rng, kinds: &[&str]) -> String {
    // Few sizes, so that channels and sizes coincide.
    let c = rng.pick(&[1, 2, 3]);
    let mut x: MapShape = map(rng, c);
    for size in &mut x.sizes {
        if size.parse::<i64>().is_ok() {
            *size = rng.pick(&["1", "2", "3", "4"]).to_owned();
        }
    }
    may_be_empty(rng, &mut x);
    let n = x.spatial();
    let mut whole: Vec<i64> = x.dims().iter().map(|s| s.parse::<i64>().unwrap_or(1)).collect();
    let along = if rng.chance(50) { 1 } else { rng.range(0, n as i64 + 2) as usize };
    if along < whole.len() {
        whole.iter_mut().enumerate().filter(|(a, _)| *a != along).for_each(|(_, s)| *s = 1);
    }
    let keep = if rng.chance(60) { whole.len() - 1 } else { rng.range(0, whole.len() as i64) as usize };
    let mut shape = whole[whole.len() - keep..].to_vec();
    match rng.range(0, 9) {
        0 => shape.insert(0, 1),
        1 => shape = vec![c],
        2 => shape = Vec::new(),
        _ => {}
    }
    let dtype = float(rng);
    let mut t = Text::new(rng, dtype);
    let input = t.input(&x.dims());
    let kind = rng.pick(kinds);
    let constant = if rng.chance(8) {
        let count: i64 = shape.iter().product();
        let v: Vec<f64> = (0..count).map(|i| if i == 0 { 0.0 } else { 1.5 }).collect();
        t.constant_of(dtype, &shape, &format!("{v:?}"))
    } else {
        t.positive(&shape)
    };
    let (a, b) = if rng.chance(50) { (&input, &constant) } else { (&constant, &input) };
    let y = t.op(kind, &[a, b], "");
    t.finish(&y)
}

/// A Pad before a convolution.
#[must_use]
pub fn pad_conv(rng: &mut Rng) -> String {
    let c = rng.range(1, 3);
    let x = map(rng, c);
    let n = x.spatial();
    let mode = if rng.chance(80) { "constant" } else { rng.pick(&["reflect", "edge"]) };
    let dtype = float(rng);
    let mut t = Text::new(rng, dtype);
    let input = t.input(&x.dims());
    let mut channels = c;
    let low = if rng.chance(20) { -1 } else { 0 };
    let side = |rng: &mut Rng| (0..n).map(|_| rng.range(low, 2)).collect::<Vec<i64>>();
    let (mut begin, mut end) = (side(rng), side(rng));
    let axes = if rng.chance(40) {
        let v: Vec<i64> = (2..n as i64 + 2).map(|a| if rng.chance(50) { a } else { a - n as i64 - 2 }).collect();
        t.ints(&v)
    } else {
        let around = |rng: &mut Rng| if rng.chance(12) { rng.range(0, 1) } else { 0 };
        let (before, after, batch) = (around(rng), around(rng), around(rng));
        channels += before + after;
        begin.splice(0..0, [batch, before]);
        end.splice(0..0, [0, after]);
        "_".to_owned()
    };
    let all: Vec<i64> = begin.iter().chain(&end).copied().collect();
    let pads = t.ints(&all);
    let value = match rng.range(0, 3) {
        0 => t.constant_of(dtype, &[], "[0.0]"),
        1 if rng.chance(50) => t.constant_of(dtype, &[], "[0.5]"),
        _ => "_".to_owned(),
    };
    let padded = t.op("Pad", &[&input, &pads, &value, &axes], &format!("mode=\"{mode}\""));
    let outputs = rng.range(1, 3);
    let mut s = Shape::random(rng, outputs, 1, n);
    if rng.chance(20) {
        s.begin[0] = -rng.range(0, 2);
        s.end[0] = -rng.range(0, 2);
    }
    let b = bias(rng);
    let y = t.conv(&padded, channels, &s, b);
    t.finish(&y)
}

/// An AveragePool.
#[must_use]
pub fn average_pool(rng: &mut Rng) -> String {
    let c = rng.range(1, 3);
    let x = map(rng, c);
    let mut s = Shape::random(rng, c, 1, x.spatial());
    if rng.chance(40) {
        s.begin.fill(0);
        s.end.fill(0);
    }
    if rng.chance(10) {
        s.end[0] = s.reach(0) + rng.range(0, 2);
    }
    let mut t = Text::new(rng, "f64");
    let input = t.input(&x.dims());
    let pads: Vec<i64> = s.begin.iter().chain(&s.end).copied().collect();
    let (ceil, include) = (rng.range(0, 1), rng.range(0, 1));
    let attributes = format!(
        "auto_pad=\"NOTSET\", ceil_mode={ceil}, count_include_pad={include}, dilations={:?}, kernel_shape={:?}, \
         pads={pads:?}, strides={:?}",
        s.dilations, s.taps, s.strides
    );
    let y = t.op("AveragePool", &[&input], &attributes);
    t.finish(&y)
}
