//! Left sides of the rules about attention over channels.

use super::{MapShape, Rng, Text, map};

/// What is wrong with a block, if something is.
#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    None,
    NotPooled,
    SamePart,
    OtherAxis,
    NotOpposite,
    OnePartSqueezed,
    OtherSqueezed,
    Unlike,
}

struct Block {
    radix: i64,
    cardinality: i64,
    width: i64,
    hidden: i64,
    spatial: usize,
    flaw: Flaw,
    /// Whether sizes are numbers, so that views can say them.
    fixed: bool,
    /// The attributes of an AveragePool of the whole map that stands for a GlobalAveragePool.
    pool: Option<String>,
    /// Whether a pair of sigmoids of opposite arguments weighs.
    twice: bool,
}

impl Block {
    fn channels(&self) -> i64 {
        self.cardinality * self.width
    }

    fn ones(&self, lead: &[i64]) -> Vec<i64> {
        [lead, vec![1; self.spatial].as_slice()].concat()
    }
}

fn numbers(rng: &mut Rng, count: i64) -> Vec<f64> {
    (0..count).map(|_| rng.range(-8, 8) as f64 / 8.0).collect()
}

fn pointwise(t: &mut Text, x: &str, w: &str, b: &str, group: i64, spatial: usize) -> String {
    let (ones, zeros) = (vec![1; spatial], vec![0; 2 * spatial]);
    let attributes =
        format!("auto_pad=\"NOTSET\", dilations={ones:?}, group={group}, pads={zeros:?}, strides={ones:?}");
    t.op("Conv", &[x, w, b], &attributes)
}

fn slice(t: &mut Text, x: &str, from: i64, to: i64) -> String {
    let (from, to, axis) = (t.ints(&[from]), t.ints(&[to]), t.ints(&[1]));
    t.op("Slice", &[x, &from, &to, &axis], "")
}

fn reshape(t: &mut Text, x: &str, shape: &[i64]) -> String {
    let shape = t.ints(shape);
    t.op("Reshape", &[x, &shape], "allowzero=0")
}

fn sum(rng: &mut Rng, t: &mut Text, mut parts: Vec<String>) -> String {
    if parts.len() > 2 && rng.chance(30) {
        let refs: Vec<&str> = parts.iter().map(String::as_str).collect();
        return t.op("Sum", &refs, "");
    }
    while parts.len() > 1 {
        let a = parts.remove(rng.range(0, parts.len() as i64 - 1) as usize);
        let b = parts.remove(rng.range(0, parts.len() as i64 - 1) as usize);
        parts.push(t.op("Add", &[&a, &b], ""));
    }
    parts.remove(0)
}

/// The means of the parts' sum, or what stands in their place; whether the means of all parts are apart.
fn squeezed(rng: &mut Rng, t: &mut Text, b: &Block, x: &str, u: &str, parts: &[String]) -> (String, bool) {
    let gap = |t: &mut Text, v: &str| match &b.pool {
        Some(attributes) => t.op("AveragePool", &[v], attributes),
        None => t.op("GlobalAveragePool", &[v], ""),
    };
    match b.flaw {
        Flaw::OnePartSqueezed => (gap(t, &parts[parts.len() - 1]), false),
        Flaw::OtherSqueezed => (gap(t, x), false),
        Flaw::NotPooled => (sum(rng, t, parts.to_vec()), false),
        Flaw::Unlike => (gap(t, u), true),
        _ => match rng.range(0, 2) {
            0 if b.cardinality == 1 => (gap(t, u), true),
            1 => {
                let means = parts.iter().map(|p| gap(t, p)).collect();
                (sum(rng, t, means), false)
            }
            _ => {
                let s = sum(rng, t, parts.to_vec());
                if rng.chance(50) {
                    return (gap(t, &s), false);
                }
                let axes: Vec<i64> = (2..2 + b.spatial as i64)
                    .map(|a| if rng.chance(30) { a - b.spatial as i64 - 2 } else { a })
                    .collect();
                let axes = t.ints(&axes);
                (t.op("ReduceMean", &[&s, &axes], "keepdims=1, noop_with_empty_axes=0"), false)
            }
        },
    }
}

/// The logits, of `outputs` channels, `twice` the negatives of the first half behind them.
fn logits(rng: &mut Rng, t: &mut Text, b: &Block, (s, apart): (String, bool), outputs: i64, twice: bool) -> String {
    let groups = if rng.chance(70) { b.cardinality } else { 1 };
    let inputs = if b.flaw == Flaw::OtherSqueezed { 1 } else { b.channels() };
    let groups = if apart || twice || inputs % groups != 0 { 1 } else { groups };
    let h = b.hidden * groups;
    let block = numbers(rng, h * (inputs / groups));
    let mut w1 = block.clone();
    if apart {
        let per = (inputs / groups) as usize;
        w1 = block.chunks(per).flat_map(|row| row.repeat(b.radix as usize)).collect();
        if b.flaw == Flaw::Unlike {
            w1[0] += 0.5;
        }
    }
    let columns = if apart { inputs * b.radix } else { inputs / groups };
    let (mut w2, mut b2) = if twice {
        let (w, v) = (numbers(rng, outputs / 2 * h), numbers(rng, outputs / 2));
        let negated = |v: &[f64]| v.iter().copied().chain(v.iter().map(|x| -x)).collect::<Vec<f64>>();
        (negated(&w), negated(&v))
    } else {
        (numbers(rng, outputs * h / groups), numbers(rng, outputs))
    };
    if b.flaw == Flaw::NotOpposite {
        let at = rng.range(0, outputs - 1) as usize;
        if rng.chance(50) { w2[at] += 0.5 } else { b2[at] += 0.5 }
    }
    let dtype = t.dtype;
    let b1 = numbers(rng, h);
    let b1 = if rng.chance(80) { t.constant_of(dtype, &[h], &format!("{b1:?}")) } else { "_".into() };
    let b2 = if twice || rng.chance(70) { t.constant_of(dtype, &[outputs], &format!("{b2:?}")) } else { "_".into() };
    if groups == 1 && b.flaw != Flaw::NotPooled && b1 != "_" && b2 != "_" && rng.chance(30) {
        let w1 = t.constant_of(dtype, &[h, columns], &format!("{w1:?}"));
        let w2 = t.constant_of(dtype, &[outputs, h], &format!("{w2:?}"));
        let flat = reshape(t, &s, &[0, columns]);
        let gemm = "alpha=1.0, beta=1.0, transA=0, transB=1";
        let a = t.op("Gemm", &[&flat, &w1, &b1], gemm);
        let a = t.op("Relu", &[&a], "");
        return t.op("Gemm", &[&a, &w2, &b2], gemm);
    }
    let w1 = t.constant_of(dtype, &b.ones(&[h, columns]), &format!("{w1:?}"));
    let w2 = t.constant_of(dtype, &b.ones(&[outputs, h / groups]), &format!("{w2:?}"));
    let a = pointwise(t, &s, &w1, &b1, groups, b.spatial);
    let a = t.op("Relu", &[&a], "");
    pointwise(t, &a, &w2, &b2, groups, b.spatial)
}

/// A softmax over the radix, `[N, R*C, 1..]`, in one of the orders in which channels come.
fn softmax(rng: &mut Rng, t: &mut Text, b: &Block, l: &str, sizes: &[i64]) -> String {
    let (r, k, w) = (b.radix, b.cardinality, b.width);
    let around = |lead: &[i64]| [lead, sizes].concat();
    let a = if rng.chance(50) {
        let a = reshape(t, l, &around(&[0, k, r, w]));
        let perm: Vec<i64> = [0, 2, 1, 3].into_iter().chain(4..4 + sizes.len() as i64).collect();
        let a = t.op("Transpose", &[&a], &format!("perm={perm:?}"));
        let axis = if b.flaw == Flaw::OtherAxis { rng.range(2, 3) } else { 1 };
        t.op("Softmax", &[&a], &format!("axis={axis}, flatten=0"))
    } else {
        let a = reshape(t, l, &around(&[0, r, k * w]));
        let axis = if b.flaw == Flaw::OtherAxis { 2 } else { 1 };
        t.op("Softmax", &[&a], &format!("axis={axis}, flatten=0"))
    };
    let back = if sizes.is_empty() { b.ones(&[0, r * k * w]) } else { around(&[0, r * k * w]) };
    reshape(t, &a, &back)
}

/// A split attention block in one of its spellings, or one with a flaw.
#[must_use]
pub fn attention(rng: &mut Rng) -> String {
    let flaw = if rng.chance(40) {
        rng.pick(&[
            Flaw::NotPooled,
            Flaw::SamePart,
            Flaw::OtherAxis,
            Flaw::NotOpposite,
            Flaw::OnePartSqueezed,
            Flaw::OtherSqueezed,
            Flaw::Unlike,
        ])
    } else {
        Flaw::None
    };
    let cardinality = if flaw == Flaw::Unlike { 1 } else { rng.pick(&[1, 1, 2]) };
    let (mut radix, width) = (rng.pick(&[2, 2, 3, 4]), rng.pick(&[1, 2]));
    let twice = flaw == Flaw::NotOpposite || (radix == 2 && rng.chance(25));
    if twice {
        radix = 2;
    }
    let groups = radix * cardinality;
    let group = if rng.chance(50) { groups } else { 1 };
    // The flaw of squeezing the input needs one channel, which any squeeze of one input takes.
    let inputs = if flaw == Flaw::OtherSqueezed { 1 } else { group * 2 };
    let group = if inputs % group == 0 { group } else { 1 };
    let x: MapShape = map(rng, inputs);
    let fixed = x.dims().iter().all(|d| d.parse::<i64>().is_ok());
    let b = Block {
        radix,
        cardinality,
        width,
        hidden: rng.range(1, 3),
        spatial: x.spatial(),
        flaw,
        fixed,
        pool: None,
        twice,
    };
    let mut b = if flaw == Flaw::OtherSqueezed { Block { cardinality: 1, width: 1, ..b } } else { b };
    let all = b.radix * b.channels();
    let group = if all % group == 0 { group } else { 1 };
    let dtype = rng.pick(&["f32", "f64"]);
    let mut t = Text::new(rng, dtype);
    let input = t.input(&x.dims());
    let t = &mut t;
    let kernel: Vec<i64> = [all, inputs / group].into_iter().chain((0..b.spatial).map(|_| rng.range(1, 3))).collect();
    let (w, bias) = (t.random(&kernel), t.random(&[all]));
    let ones = vec![1; b.spatial];
    let pads: Vec<i64> = kernel[2..].iter().map(|k| k / 2).chain(kernel[2..].iter().map(|k| (k - 1) / 2)).collect();
    let strides: Vec<i64> =
        ones.iter().map(|_| if flaw == Flaw::NotPooled { 1 } else { rng.pick(&[1, 1, 2]) }).collect();
    if b.fixed && flaw != Flaw::OtherSqueezed && rng.chance(20) {
        let sizes: Vec<i64> = x.sizes.iter().zip(&strides).map(|(d, s)| (super::fixed(d) + s - 1) / s).collect();
        b.pool = Some(format!(
            "auto_pad=\"NOTSET\", ceil_mode=0, count_include_pad=1, dilations={ones:?}, kernel_shape={sizes:?}, \
             pads={:?}, strides={sizes:?}",
            vec![0; 2 * b.spatial]
        ));
    }
    let attributes =
        format!("auto_pad=\"NOTSET\", dilations={ones:?}, group={group}, pads={pads:?}, strides={strides:?}");
    let operands = [input.as_str(), &w, &bias];
    let mut u = t.op("Conv", if rng.chance(80) { &operands } else { &operands[..2] }, &attributes);
    if rng.chance(70) {
        u = t.op("Relu", &[&u], "");
    }
    let c = b.channels();
    // Channels part by part; group by group; or the parts of each channel together.
    let order = if flaw == Flaw::None && rng.chance(30) { rng.range(1, 2) } else { 0 };
    let parts: Vec<String> = (0..b.radix)
        .map(|r| {
            if order == 0 {
                return slice(t, &u, r * c, r * c + c);
            }
            let (k, j) = (|i: i64| i / b.width, |i: i64| i % b.width);
            let grouped = |i: i64| (k(i) * b.radix + r) * b.width + j(i);
            let channels: Vec<i64> = (0..c).map(|i| if order == 1 { grouped(i) } else { i * b.radix + r }).collect();
            let channels = t.ints(&channels);
            t.op("Gather", &[&u, &channels], "axis=1")
        })
        .collect();
    let s = squeezed(rng, t, &b, &input, &u, &parts);
    let whole = (order == 0).then_some(u.as_str());
    let y = weighed(rng, t, &b, &x, whole, &parts, s);
    let text =
        Text { inputs: std::mem::take(&mut t.inputs), body: std::mem::take(&mut t.body), ..Text::new(rng, dtype) };
    text.finish(&y)
}

fn weighed(
    rng: &mut Rng,
    t: &mut Text,
    b: &Block,
    x: &MapShape,
    u: Option<&str>,
    parts: &[String],
    s: (String, bool),
) -> String {
    let (c, twice) = (b.channels(), b.twice);
    let both = |rng: &mut Rng, t: &mut Text, p: &str, q: &str| {
        if rng.chance(50) { t.op("Mul", &[p, q], "") } else { t.op("Mul", &[q, p], "") }
    };
    if b.radix == 2 && !twice && b.flaw == Flaw::None && rng.chance(30) {
        let l = logits(rng, t, b, s, c, false);
        let l = reshape(t, &l, &b.ones(&[0, c]));
        let a = t.op("Sigmoid", &[&l], "");
        let (p, q) = if rng.chance(50) { (&parts[0], &parts[1]) } else { (&parts[1], &parts[0]) };
        if rng.chance(50) {
            let d = t.op("Sub", &[p, q], "");
            let m = both(rng, t, &a, &d);
            return sum(rng, t, vec![q.clone(), m]);
        }
        let dtype = t.dtype;
        let one = t.constant_of(dtype, &[], "[1.0]");
        let rest = t.op("Sub", &[&one, &a], "");
        let (m, n) = (both(rng, t, &a, p), both(rng, t, q, &rest));
        return sum(rng, t, vec![m, n]);
    }
    let l = logits(rng, t, b, s, b.radix * c, twice);
    let a = if twice {
        let l = reshape(t, &l, &b.ones(&[0, b.radix * c]));
        t.op("Sigmoid", &[&l], "")
    } else if b.flaw == Flaw::NotPooled {
        let sizes: Vec<i64> = x.sizes.iter().map(|d| d.parse().unwrap_or(-1)).collect();
        softmax(rng, t, b, &l, &sizes)
    } else {
        softmax(rng, t, b, &l, &[])
    };
    if let Some(u) = u.filter(|_| b.flaw == Flaw::None && rng.chance(30)) {
        // One product over all parts, split behind it or summed as a view.
        let m = both(rng, t, u, &a);
        let sizes: Vec<i64> = x.sizes.iter().filter_map(|d| d.parse().ok()).collect();
        if b.fixed && rng.chance(50) && sizes.len() == 1 {
            let m = reshape(t, &m, &[0, b.radix, c, -1]);
            let axis = t.ints(&[1]);
            return t.op("ReduceSum", &[&m, &axis], "keepdims=0, noop_with_empty_axes=0");
        }
        let m = (0..b.radix).map(|r| slice(t, &m, r * c, r * c + c)).collect();
        return sum(rng, t, m);
    }
    let products = (0..b.radix)
        .map(|r| {
            let a = slice(t, &a, r * c, r * c + c);
            let part = if b.flaw == Flaw::SamePart { 0 } else { r as usize };
            both(rng, t, &a, &parts[part])
        })
        .collect();
    sum(rng, t, products)
}
