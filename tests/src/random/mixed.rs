//! Left sides of the rules that recognise convolutions with kernels mixed for each sample.

use super::{
    Rng, Text,
    conv::{Shape, common_divisor, float},
};

/// Sizes of a mixed convolution of a batch of known size.
struct Sizes {
    n: i64,
    experts: i64,
    channels: i64,
    shape: Shape,
    sizes: Vec<String>,
}

impl Sizes {
    fn random(rng: &mut Rng, least: i64) -> Sizes {
        let (channels, outputs) = (rng.pick(&[1, 2, 4]), rng.pick(&[1, 2, 4]));
        let group = rng.divisor(common_divisor(channels, outputs));
        let spatial = rng.pick(&[1, 1, 2]);
        let shape = Shape::random(rng, outputs, group, spatial as usize);
        let symbolic = rng.chance(30);
        let size = |a: usize, rng: &mut Rng| {
            if symbolic && rng.chance(70) { ["H", "W"][a].to_owned() } else { rng.range(1, 8).to_string() }
        };
        let sizes = (0..spatial as usize).map(|a| size(a, rng)).collect();
        Sizes { n: rng.range(least, 3), experts: rng.range(1, 3), channels, shape, sizes }
    }

    fn dims(&self, batch: &str, channels: i64) -> Vec<String> {
        [batch.to_owned(), channels.to_string()].into_iter().chain(self.sizes.iter().cloned()).collect()
    }

    /// Sizes of one sample's kernel.
    fn kernel(&self) -> Vec<i64> {
        let lead = [self.shape.outputs, self.channels / self.shape.group];
        lead.into_iter().chain(self.shape.taps.iter().copied()).collect()
    }

    fn attributes(&self, group: i64) -> String {
        let s = &self.shape;
        let pads: Vec<i64> = s.begin.iter().chain(&s.end).copied().collect();
        let (dilations, strides) = (&s.dilations, &s.strides);
        format!("auto_pad=\"NOTSET\", dilations={dilations:?}, group={group}, pads={pads:?}, strides={strides:?}")
    }
}

impl Text {
    pub(super) fn reshaped(&mut self, x: &str, shape: &[i64]) -> String {
        let shape = self.ints(shape);
        self.op("Reshape", &[x, &shape], "allowzero=0")
    }

    /// `x[at]` along an axis, which stays: by Slice, or by Gather with a list.
    pub(super) fn piece(&mut self, rng: &mut Rng, x: &str, axis: i64, at: i64) -> String {
        if rng.chance(40) {
            let index = self.ints(&[at]);
            return self.op("Gather", &[x, &index], &format!("axis={axis}"));
        }
        let (from, to, axes) = (self.ints(&[at]), self.ints(&[at + 1]), self.ints(&[axis]));
        self.op("Slice", &[x, &from, &to, &axes], "")
    }

    fn summed(&mut self, x: &str, axis: i64, keepdims: i64) -> String {
        let axes = self.ints(&[axis]);
        self.op("ReduceSum", &[x, &axes], &format!("keepdims={keepdims}, noop_with_empty_axes=0"))
    }

    /// `[n, m]`: constant experts mixed by `r`, `[n, e]`, in one of many spellings; if `astray`, `[m, n]`, which has
    /// the samples innermost.
    fn mixture(&mut self, rng: &mut Rng, r: &str, n: i64, e: i64, m: i64, astray: bool) -> String {
        if astray {
            let w = self.random(&[m, e]);
            let turned = self.op("Transpose", &[r], "perm=[1, 0]");
            return self.op("MatMul", &[&w, &turned], "");
        }
        match rng.range(0, 8) {
            0 => {
                let w = self.random(&[e, m]);
                self.op("MatMul", &[r, &w], "")
            }
            1 => {
                let w = self.random(&[m, e]);
                self.op("Gemm", &[r, &w], "alpha=0.5, beta=1.0, trans_a=0, trans_b=1")
            }
            2 => {
                let w = self.random(&[m, e]);
                let equation = rng.pick(&["ij,kj->ik", "ne, me -> nm"]);
                self.op("Einsum", &[r, &w], &format!("equation=\"{equation}\""))
            }
            3 => {
                let w = self.random(&[e, m]);
                self.op("Einsum", &[&w, r], "equation=\"em,ne->nm\"")
            }
            4 => {
                let w = self.random(&[e, m]);
                let wide = self.reshaped(r, &[n, e, 1]);
                let product =
                    if rng.chance(50) { self.op("Mul", &[&wide, &w], "") } else { self.op("Mul", &[&w, &wide], "") };
                let keep = rng.range(0, 1);
                let sum = self.summed(&product, rng.pick(&[1, -2]), keep);
                if keep == 1 { self.reshaped(&sum, &[n, m]) } else { sum }
            }
            5 => {
                let w = self.random(&[m, e]);
                let turned = self.op("Transpose", &[r], "perm=[1, 0]");
                let y = self.op("MatMul", &[&w, &turned], "");
                self.op("Transpose", &[&y], "perm=[1, 0]")
            }
            6 => {
                let w = self.random(&[m, e, 1, 1]);
                let map = self.reshaped(r, &[n, e, 1, 1]);
                let attributes = "auto_pad=\"NOTSET\", dilations=[1, 1], group=1, pads=[0, 0, 0, 0], strides=[1, 1]";
                let y = self.op("Conv", &[&map, &w], attributes);
                self.reshaped(&y, &[n, m])
            }
            _ => {
                let mut order: Vec<i64> = (0..e).collect();
                if rng.chance(50) {
                    order.reverse();
                }
                let mut sum: Option<String> = None;
                for at in order {
                    let column = self.piece(rng, r, 1, at);
                    let w = self.random(&[1, m]);
                    let term = self.op("Mul", &[&column, &w], "");
                    sum = Some(match sum {
                        Some(s) => self.op("Add", &[&s, &term], ""),
                        None => term,
                    });
                }
                sum.unwrap_or_default()
            }
        }
    }
}

/// A convolution whose groups are the samples, with mixed kernels.
#[must_use]
pub fn mixed_groups(rng: &mut Rng) -> String {
    let mut s = Sizes::random(rng, 1);
    let dtype = float(rng);
    let mut t = Text::new(rng, dtype);
    let spoiled = rng.range(0, 9);
    let (n, e, o) = (s.n, s.experts, s.shape.outputs);
    let r = t.input(&[n.to_string(), e.to_string()]);
    let kept = vec![0; s.sizes.len()];
    let mut group = s.shape.group * n;
    let x = if n == 1 {
        // Kernels of one sample for a batch of any size.
        let batch = if spoiled == 0 { "N" } else { "1" };
        t.input(&s.dims(batch, s.channels))
    } else {
        let x = t.input(&s.dims(&n.to_string(), s.channels));
        t.reshaped(&x, &[&[1, n * s.channels], kept.as_slice()].concat())
    };
    if spoiled == 1 && n > 1 {
        // One group, which all samples' kernels see whole.
        group = 1;
        s.shape.group = 1;
        s.channels *= n;
    }
    let kernel = s.kernel();
    let m: i64 = kernel.iter().product();
    let flat = t.mixture(rng, &r, n, e, m, spoiled == 2);
    let k = t.reshaped(&flat, &[&[n * o], &kernel[1..]].concat());
    let b = match rng.range(0, 5) {
        0 | 1 => "_".to_owned(),
        2 => {
            let b = t.mixture(rng, &r, n, e, o, false);
            t.reshaped(&b, &[n * o])
        }
        3 => {
            let other = t.input(&[n.to_string(), e.to_string()]);
            let b = t.mixture(rng, &other, n, e, o, false);
            t.reshaped(&b, &[n * o])
        }
        4 => {
            let row: Vec<f64> = (0..o).map(|i| i as f64 + 0.5).collect();
            let all: Vec<f64> = (0..n).flat_map(|_| row.clone()).collect();
            t.constant_of(dtype, &[n * o], &format!("{all:?}"))
        }
        _ => t.random(&[n * o]),
    };
    let y = t.op("Conv", &[&x, &k, &b], &s.attributes(group));
    let y = if n > 1 && rng.chance(70) { t.reshaped(&y, &[&[n, o], kept.as_slice()].concat()) } else { y };
    t.finish(&y)
}

/// The results of some experts, weighted and added up.
#[must_use]
pub fn mixed_experts(rng: &mut Rng) -> String {
    let s = Sizes::random(rng, 1);
    let dtype = float(rng);
    let mut t = Text::new(rng, dtype);
    let batch = if rng.chance(40) { "N".to_owned() } else { s.n.to_string() };
    let product = rng.chance(20);
    let r = t.input(&[batch.clone(), s.experts.to_string()]);
    let dims = if product { vec![batch, s.channels.to_string()] } else { s.dims(&batch, s.channels) };
    let x = t.input(&dims);
    let mut leaves = Vec::new();
    let spoiled = rng.range(0, 4);
    for e in 0..s.experts {
        let other = e > 0 && rng.chance(50);
        let y = if product {
            let w = t.random(&[s.channels, s.shape.outputs]);
            t.op("MatMul", &[&x, &w], "")
        } else {
            let mut own = Sizes { shape: s.shape.clone(), sizes: s.sizes.clone(), ..s };
            // The same sizes by another window.
            if other && spoiled == 0 {
                own.shape.begin[0] += 1;
                own.shape.end[0] -= 1;
            }
            let from = if other && spoiled == 1 { t.input(&dims) } else { x.clone() };
            let w = t.random(&own.kernel());
            let b = if rng.chance(50) { t.random(&[s.shape.outputs]) } else { "_".to_owned() };
            t.op("Conv", &[&from, &w, &b], &own.attributes(s.shape.group))
        };
        let column = t.piece(rng, &r, 1, e);
        let ones = vec![1; s.sizes.len() + 1];
        let weight = if product { column } else { t.reshaped(&column, &[&[0], ones.as_slice()].concat()) };
        leaves.push(if rng.chance(50) { t.op("Mul", &[&y, &weight], "") } else { t.op("Mul", &[&weight, &y], "") });
    }
    if rng.chance(20) {
        let more = leaves[0].clone();
        leaves.push(t.op("Relu", &[&more], ""));
    }
    if leaves.len() > 2 && rng.chance(30) {
        let all: Vec<&str> = leaves.iter().map(String::as_str).collect();
        let y = t.op("Sum", &all, "");
        return t.finish(&y);
    }
    while leaves.len() > 1 {
        let a = leaves.remove(rng.range(0, leaves.len() as i64 - 1) as usize);
        let b = leaves.remove(rng.range(0, leaves.len() as i64 - 1) as usize);
        let sum = t.op("Add", &[&a, &b], "");
        leaves.push(sum);
    }
    let y = leaves.remove(0);
    t.finish(&y)
}

/// A convolution times a factor that is one number for each sample, or nearly.
#[must_use]
pub fn mixed_single(rng: &mut Rng) -> String {
    let s = Sizes::random(rng, 1);
    let dtype = float(rng);
    let mut t = Text::new(rng, dtype);
    let batch = if rng.chance(40) { "N".to_owned() } else { s.n.to_string() };
    let x = t.input(&s.dims(&batch, s.channels));
    let w = t.random(&s.kernel());
    let b = if rng.chance(50) { t.random(&[s.shape.outputs]) } else { "_".to_owned() };
    let y = t.op("Conv", &[&x, &w, &b], &s.attributes(s.shape.group));
    let ones = vec!["1".to_owned(); s.sizes.len()];
    let r = match rng.range(0, 4) {
        // A gate for each channel, or the same number for all samples.
        0 => t.input(&[&[batch, s.shape.outputs.to_string()], ones.as_slice()].concat()),
        1 => t.input(&[&["1".to_owned(), "1".to_owned()], ones.as_slice()].concat()),
        2 => {
            let r = t.input(&[batch, "3".to_owned()]);
            let column = t.piece(rng, &r, 1, 2);
            t.reshaped(&column, &[&[0, 1], vec![1; s.sizes.len()].as_slice()].concat())
        }
        _ => t.input(&[&[batch, "1".to_owned()], ones.as_slice()].concat()),
    };
    let y = if rng.chance(50) { t.op("Mul", &[&y, &r], "") } else { t.op("Mul", &[&r, &y], "") };
    t.finish(&y)
}

/// Which samples an unrolled model takes, and how it is spoiled.
struct Rows {
    batch: String,
    rows: Vec<i64>,
    other: Option<usize>,
}

impl Rows {
    fn random(rng: &mut Rng, n: i64) -> Rows {
        let mut rows: Vec<i64> = (0..n).collect();
        let (mut batch, mut other) = (n.to_string(), None);
        match rng.range(0, 7) {
            0 => rows.reverse(),
            1 => batch = (n + 1).to_string(),
            2 => batch = "N".to_owned(),
            3 | 4 => other = Some(rng.range(1, n - 1) as usize),
            _ => {}
        }
        Rows { batch, rows, other }
    }
}

/// One convolution with a mixed kernel for each sample.
#[must_use]
pub fn mixed_samples(rng: &mut Rng) -> String {
    let s = Sizes::random(rng, 2);
    let dtype = float(rng);
    let mut t = Text::new(rng, dtype);
    let Rows { batch, rows, other } = Rows::random(rng, s.n);
    let (e, kernel) = (s.experts, s.kernel());
    let m: i64 = kernel.iter().product();
    // Sizes that only a large batch has are not tried.
    let r = t.input(&[batch.clone(), e.to_string()]);
    let x = t.input(&s.dims(&batch, s.channels));
    let own_routes = rng.chance(20);
    let columns = rng.chance(30);
    let biased = !columns && rng.chance(50);
    let (w, v) = (t.random(&[e, m]), t.random(&[e, s.shape.outputs]));
    let pair = [t.random(&[1, m]), t.random(&[1, m])];
    let mut parts = Vec::new();
    for (i, row) in rows.into_iter().enumerate() {
        let part = t.piece(rng, &x, 0, row);
        let own = if own_routes { t.input(&["1".to_owned(), e.to_string()]) } else { t.piece(rng, &r, 0, row) };
        let experts = if other == Some(i) { t.random(&[e, m]) } else { w.clone() };
        let flat = if columns && e > 1 {
            // Experts that a sample chooses.
            let from = rng.range(0, e - 1);
            let chosen = [from, if rng.chance(50) { (from + 1) % e } else { (from + 2) % e }];
            let terms: Vec<String> = pair
                .iter()
                .zip(chosen)
                .map(|(w, c)| {
                    let column = t.piece(rng, &own, 1, c);
                    t.op("Mul", &[&column, w], "")
                })
                .collect();
            t.op("Add", &[&terms[0], &terms[1]], "")
        } else {
            t.op("MatMul", &[&own, &experts], "")
        };
        let k = t.reshaped(&flat, &kernel);
        let b = if biased {
            let b = t.op("MatMul", &[&own, &v], "");
            t.reshaped(&b, &[s.shape.outputs])
        } else {
            "_".to_owned()
        };
        parts.push(t.op("Conv", &[&part, &k, &b], &s.attributes(s.shape.group)));
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let y = t.op("Concat", &parts, "axis=0");
    t.finish(&y)
}

/// One convolution with the same kernel for each sample.
#[must_use]
pub fn conv_samples(rng: &mut Rng) -> String {
    let s = Sizes::random(rng, 2);
    let dtype = float(rng);
    let mut t = Text::new(rng, dtype);
    let Rows { batch, rows, other } = Rows::random(rng, s.n);
    let x = t.input(&s.dims(&batch, s.channels));
    let (w, b) = (t.random(&s.kernel()), rng.chance(80).then(|| t.random(&[s.shape.outputs])));
    let mut parts = Vec::new();
    for (i, row) in rows.into_iter().enumerate() {
        let part = t.piece(rng, &x, 0, row);
        let own = if other == Some(i) { t.random(&s.kernel()) } else { w.clone() };
        let operands: Vec<&str> = [&part, &own].into_iter().chain(&b).map(String::as_str).collect();
        parts.push(t.op("Conv", &operands, &s.attributes(s.shape.group)));
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let y = t.op("Concat", &parts, "axis=0");
    t.finish(&y)
}

/// A constant that repeats for each of `n` samples, or nearly.
fn repeated(rng: &mut Rng, t: &mut Text, n: i64, shape: &[i64]) -> String {
    let count: i64 = shape.iter().product();
    let row: Vec<f64> = (0..count).map(|_| rng.range(-3, 3) as f64 * 0.5).collect();
    let mut all: Vec<f64> = (0..n).flat_map(|_| row.clone()).collect();
    if rng.chance(30) {
        let at = rng.range(0, all.len() as i64 - 1) as usize;
        all[at] += 1.0;
    }
    let whole = [&[n * shape[0]], &shape[1..]].concat();
    t.constant_of(t.dtype, &whole, &format!("{all:?}"))
}

/// A convolution whose groups are the samples, with constant kernels.
#[must_use]
pub fn folded_batch(rng: &mut Rng) -> String {
    let s = Sizes::random(rng, 2);
    let dtype = float(rng);
    let mut t = Text::new(rng, dtype);
    let x = t.input(&s.dims(&s.n.to_string(), s.channels));
    let kept = vec![0; s.sizes.len()];
    let folded = t.reshaped(&x, &[&[1, s.n * s.channels], kept.as_slice()].concat());
    // One group that reads all samples.
    let dense = rng.chance(10);
    let mut kernel = s.kernel();
    if dense {
        kernel[1] = s.n * s.channels;
    }
    let w = repeated(rng, &mut t, s.n, &kernel);
    let b = if rng.chance(50) { repeated(rng, &mut t, s.n, &[s.shape.outputs]) } else { "_".to_owned() };
    let y = t.op("Conv", &[&folded, &w, &b], &s.attributes(if dense { 1 } else { s.shape.group * s.n }));
    t.finish(&y)
}

/// A map and a constant with a row for each sample.
#[must_use]
pub fn constant_rows(rng: &mut Rng) -> String {
    let s = Sizes::random(rng, 1);
    let dtype = float(rng);
    let mut t = Text::new(rng, dtype);
    let rows = rng.range(2, 3);
    let batch = if rng.chance(60) { rows.to_string() } else { rng.pick(&["1", "N"]).to_owned() };
    let x = t.input(&s.dims(&batch, s.channels));
    let along: Vec<i64> = [rng.pick(&[1, s.channels])].into_iter().chain(vec![1; s.sizes.len()]).collect();
    let c = repeated(rng, &mut t, rows, &[&[1], along.as_slice()].concat());
    let kind = rng.pick(&["Mul", "Add", "Sub"]);
    let y = if rng.chance(50) { t.op(kind, &[&x, &c], "") } else { t.op(kind, &[&c, &x], "") };
    t.finish(&y)
}

/// A product of vectors with mixed matrices.
#[must_use]
pub fn mixed_linear(rng: &mut Rng) -> String {
    let dtype = float(rng);
    let mut t = Text::new(rng, dtype);
    let (n, e, i, o) = (rng.range(1, 3), rng.range(1, 3), rng.range(1, 4), rng.range(1, 4));
    if rng.chance(30) {
        // An open batch, which may be another than that of the coefficients.
        let r = t.input(&["N".to_owned(), e.to_string()]);
        let w = t.random(&[e, i * o]);
        let flat = t.op("MatMul", &[&r, &w], "");
        let batch = if rng.chance(25) { "M" } else { "N" };
        let x = t.input(&[batch.to_owned(), i.to_string(), rng.pick(&["1", "1", "1", "2"]).to_owned()]);
        let k = t.reshaped(&flat, &[rng.pick(&[0, -1]), o, i]);
        let y = t.op("MatMul", &[&k, &x], "");
        return t.finish(&y);
    }
    let r = t.input(&[n.to_string(), e.to_string()]);
    let flat = t.mixture(rng, &r, n, e, i * o, false);
    // Vectors of which some share a matrix.
    let shared = rng.chance(25);
    let rows = if shared { rng.pick(&["2", "3", "N"]) } else { "1" };
    let size = |d: i64| d.to_string();
    let y = if n == 1 && rng.chance(60) {
        let x = t.input(&[rows.to_owned(), size(i)]);
        let b = if rng.chance(50) { t.random(&[o]) } else { "_".to_owned() };
        if rng.chance(50) {
            let k = t.reshaped(&flat, &[i, o]);
            t.op("MatMul", &[&x, &k], "")
        } else {
            let k = t.reshaped(&flat, &[o, i]);
            t.op("Gemm", &[&x, &k, &b], "alpha=1.0, beta=1.0, trans_a=0, trans_b=1")
        }
    } else if rng.chance(50) {
        let k = t.reshaped(&flat, &[n, o, i]);
        let x = t.input(&[size(n), size(i), rows.to_owned()]);
        t.op("MatMul", &[&k, &x], "")
    } else {
        let k = t.reshaped(&flat, &[n, i, o]);
        let x = t.input(&[size(n), rows.to_owned(), size(i)]);
        t.op("MatMul", &[&x, &k], "")
    };
    t.finish(&y)
}
