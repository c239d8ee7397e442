//! Left sides of the rules about what folds into the experts of a mixed convolution, and into its router.

use super::{
    Rng, Text,
    conv::{Bias, Shape, bias, common_divisor, float},
    map, unbounded,
};

impl Text {
    /// A mixed convolution of `x`, `[batch, channels, ..]`, whose coefficients are a softmax or an input.
    fn mixed(&mut self, rng: &mut Rng, x: &str, batch: &str, channels: i64, s: &Shape, biases: i64) -> String {
        let experts = rng.range(1, 3);
        if let Ok(n) = batch.parse::<i64>()
            && rng.chance(25)
        {
            // Some rows of a larger softmax, or what lies across its rows.
            let logits = self.input(&[(n + 1).to_string(), experts.to_string()]);
            let weights = self.op("Softmax", &[&logits], "axis=1, flatten=0");
            let flat = self.reshaped(&weights, &[(n + 1) * experts, 1]);
            let start = if rng.chance(50) { 0 } else { rng.range(0, experts) };
            let (from, to, axis) = (self.ints(&[start]), self.ints(&[start + n * experts]), self.ints(&[0]));
            let some = self.op("Slice", &[&flat, &from, &to, &axis], "");
            let r = self.reshaped(&some, &[n, experts]);
            return self.mixed_by(x, &r, experts, channels, s, biases);
        }
        let logits = self.input(&[batch.to_owned(), experts.to_string()]);
        let r = if rng.chance(50) { self.op("Softmax", &[&logits], "axis=1, flatten=0") } else { logits };
        self.mixed_by(x, &r, experts, channels, s, biases)
    }

    /// `biases`: 0 none, 1 one for each channel, 2 mixed, 3 mixed zeros.
    fn mixed_by(&mut self, x: &str, r: &str, experts: i64, channels: i64, s: &Shape, biases: i64) -> String {
        let lead = [experts, s.outputs, channels / s.group];
        let w = self.random(&lead.into_iter().chain(s.taps.iter().copied()).collect::<Vec<i64>>());
        let b = match biases {
            1 => self.random(&[s.outputs]),
            2 => self.random(&[experts, s.outputs]),
            3 => self.constant_of(self.dtype, &[experts, s.outputs], "zeros"),
            _ => "_".to_owned(),
        };
        let pads: Vec<i64> = s.begin.iter().chain(&s.end).copied().collect();
        let (dilations, strides, group) = (&s.dilations, &s.strides, s.group);
        let attributes = format!("dilations={dilations:?}, group={group}, pads={pads:?}, strides={strides:?}");
        self.op("CondConv", &[x, r, &w, &b], &attributes)
    }
}

/// A scale, a shift or a BatchNormalization behind a mixed convolution.
#[must_use]
pub fn mixed_affine(rng: &mut Rng) -> String {
    let c = rng.pick(&[1, 2, 4]);
    let x = map(rng, c);
    let outputs = rng.pick(&[1, 2, 4]);
    let group = rng.divisor(common_divisor(c, outputs));
    let s = Shape::random(rng, outputs, group, x.spatial());
    let mut t = Text::new(rng, "f32");
    let input = t.input(&x.dims());
    let biases = rng.pick(&[0, 1, 2, 2]);
    let m = t.mixed(rng, &input, &x.batch, c, &s, biases);
    let along: Vec<i64> = [rng.pick(&[1, outputs])].into_iter().chain(vec![1; x.spatial()]).collect();
    let y = match rng.range(0, 4) {
        0 => {
            let (gamma, beta, mean) = (t.random(&[outputs]), t.random(&[outputs]), t.random(&[outputs]));
            let variance = t.positive(&[outputs]);
            t.op("BatchNormalization", &[&m, &gamma, &beta, &mean, &variance], "epsilon=1e-5")
        }
        1 => {
            let scale = t.positive(&along);
            t.op(rng.pick(&["Mul", "Div"]), &[&m, &scale], "")
        }
        2 => {
            let shift = t.random(&along);
            t.op("Sub", &[&shift, &m], "")
        }
        _ => {
            let shift = t.random(&along);
            let kind = rng.pick(&["Add", "Sub"]);
            t.op(kind, &[&m, &shift], "")
        }
    };
    t.finish(&y)
}

/// A mixture of biases added to a mixed convolution.
#[must_use]
pub fn mixed_bias(rng: &mut Rng) -> String {
    let (n, c, outputs, experts) = (rng.range(1, 3), rng.pick(&[1, 2]), rng.range(1, 3), rng.range(1, 3));
    let spatial = rng.pick(&[1, 2]) as usize;
    let s = Shape::random(rng, outputs, 1, spatial);
    let dtype = float(rng);
    let mut t = Text::new(rng, dtype);
    let sizes = (0..spatial).map(|_| rng.range(1, 8).to_string());
    let dims: Vec<String> = [n.to_string(), c.to_string()].into_iter().chain(sizes).collect();
    let x = t.input(&dims);
    let r = t.input(&[n.to_string(), experts.to_string()]);
    let y = t.mixed_by(&x, &r, experts, c, &s, 0);
    let by = if rng.chance(30) { t.input(&[n.to_string(), experts.to_string()]) } else { r };
    // Where there are as many samples as channels, the transposed product has the same shape.
    let mixed = if n == outputs && rng.chance(50) {
        let (b, turned) = (t.random(&[outputs, experts]), t.op("Transpose", &[&by], "perm=[1, 0]"));
        t.op("MatMul", &[&b, &turned], "")
    } else {
        let b = t.random(&[experts, outputs]);
        t.op("MatMul", &[&by, &b], "")
    };
    let mixed = t.reshaped(&mixed, &[&[n, outputs], vec![1; spatial].as_slice()].concat());
    let y = if rng.chance(50) { t.op("Add", &[&y, &mixed], "") } else { t.op("Add", &[&mixed, &y], "") };
    t.finish(&y)
}

/// A mixed convolution whose coefficients are constant, or nearly.
#[must_use]
pub fn mixed_constant(rng: &mut Rng) -> String {
    let (n, c, outputs, experts) = (rng.range(1, 3), rng.pick(&[1, 2]), rng.range(1, 3), rng.range(1, 3));
    let s = Shape::random(rng, outputs, 1, 1);
    let mut t = Text::new(rng, "f32");
    let form = rng.range(0, 4);
    let batch = if form < 2 && rng.chance(50) { "N".to_owned() } else { n.to_string() };
    let x = t.input(&[batch.clone(), c.to_string(), rng.range(1, 8).to_string()]);
    let (r, e) = match form {
        0 => {
            let e = rng.pick(&[1, 1, 2]);
            let logits = t.input(&[batch, e.to_string()]);
            (t.op("Softmax", &[&logits], "axis=1, flatten=0"), e)
        }
        1 => {
            // A column that is widened is no row.
            let turned = batch == experts.to_string() && rng.chance(50);
            let row = t.random(&if turned { [experts, 1] } else { [1, experts] });
            let size = t.op("Shape", &[&x], "start=0, end=1");
            let width = t.ints(&[if turned { experts } else { 1 }]);
            let shape = t.op("Concat", &[&size, &width], "axis=0");
            let r = t.op("Expand", &[&row, &shape], "");
            (if batch == "1" && rng.chance(50) { t.piece(rng, &r, 0, 0) } else { r }, experts)
        }
        2 => (t.input(&[batch, experts.to_string()]), experts),
        _ => {
            let row: Vec<f64> = (0..experts).map(|_| rng.range(-3, 3) as f64 * 0.5).collect();
            let mut all: Vec<f64> = (0..n).flat_map(|_| row.clone()).collect();
            if rng.chance(30) {
                all[0] += 1.0;
            }
            (t.constant_of("f32", &[n, experts], &format!("{all:?}")), experts)
        }
    };
    let biases = rng.range(0, 2);
    let y = t.mixed_by(&x, &r, e, c, &s, biases);
    t.finish(&y)
}

/// Two windows, of which the second reads no padding, or only zeros that the first leaves, or just misses that.
fn windows(rng: &mut Rng, spatial: usize, outputs: [i64; 2], groups: [i64; 2]) -> [Shape; 2] {
    let mut first = Shape::random(rng, outputs[0], groups[0], spatial);
    let mut second = Shape::random(rng, outputs[1], groups[1], spatial);
    match rng.range(0, 3) {
        0 | 1 => {
            second.begin.fill(0);
            second.end.fill(0);
        }
        2 => {
            first.taps.fill(1);
            first.begin.fill(0);
            first.end.fill(0);
        }
        _ => {}
    }
    [first, second]
}

/// A convolution behind a mixed one, or before it.
#[must_use]
pub fn mixed_chain(rng: &mut Rng, mixed_first: bool) -> String {
    let (c, m, o) = (rng.pick(&[1, 2, 4]), rng.pick(&[1, 2, 4]), rng.pick(&[1, 2, 4]));
    let x = map(rng, c);
    let groups = [rng.divisor(common_divisor(c, m)), rng.divisor(common_divisor(m, o))];
    let [first, second] = windows(rng, x.spatial(), [m, o], groups);
    let mut t = Text::new(rng, "f32");
    let input = t.input(&x.dims());
    let input = unbounded(rng, &mut t, input, 30);
    let biases = rng.pick(&[0, 1, 2, 2, 3]);
    let y = if mixed_first {
        let first = t.mixed(rng, &input, &x.batch, c, &first, biases);
        let b = bias(rng);
        t.conv(&first, m, &second, b)
    } else {
        let b = if rng.chance(50) { Bias::Random } else { bias(rng) };
        let first = t.conv(&input, c, &first, b);
        t.mixed(rng, &first, &x.batch, m, &second, biases)
    };
    t.finish(&y)
}

/// A product with a constant matrix, scaled.
#[must_use]
pub fn scaled_product(rng: &mut Rng) -> String {
    let dtype = float(rng);
    let mut t = Text::new(rng, dtype);
    let (n, i, o) = (rng.pick(&["1", "2", "3", "N"]), rng.range(1, 4), rng.pick(&[1, 2, 3]));
    let x = t.input(&[n.to_owned(), i.to_string()]);
    let y = match rng.range(0, 2) {
        0 => {
            let w = t.random(&[o, i]);
            let b = if rng.chance(50) { t.random(&[o]) } else { "_".to_owned() };
            t.op("Gemm", &[&x, &w, &b], "alpha=2.0, beta=0.5, trans_a=0, trans_b=1")
        }
        form => {
            let w = t.random(&[i, o]);
            let y = t.op("MatMul", &[&x, &w], "");
            if form == 1 {
                let b = t.random(&[o]);
                t.op("Add", &[&b, &y], "")
            } else {
                y
            }
        }
    };
    let shape = match rng.range(0, 6) {
        0 => vec![],
        1 => vec![1],
        2 => vec![o],
        3 => vec![1, o],
        4 => vec![2, 1],
        5 => vec![1, 1, o],
        _ => vec![3, 1],
    };
    let s = if rng.chance(8) {
        let count: i64 = shape.iter().product();
        t.constant_of(dtype, &shape, &format!("{:?}", vec![0.0; count as usize]))
    } else {
        t.positive(&shape)
    };
    let y = match rng.range(0, 2) {
        0 => t.op("Mul", &[&y, &s], ""),
        1 => t.op("Mul", &[&s, &y], ""),
        _ => t.op("Div", &[&y, &s], ""),
    };
    t.finish(&y)
}

/// A view of a product or a convolution, scaled.
#[must_use]
pub fn scaled_view(rng: &mut Rng) -> String {
    let dtype = float(rng);
    let mut t = Text::new(rng, dtype);
    let (n, i, o) = (rng.pick(&["1", "2", "N"]), rng.range(1, 3), rng.range(1, 3));
    let y = if rng.chance(50) {
        let x = map(rng, i);
        let s = Shape::random(rng, o, 1, x.spatial());
        let input = t.input(&x.dims());
        let b = bias(rng);
        t.conv(&input, i, &s, b)
    } else {
        let x = t.input(&[n.to_owned(), i.to_string()]);
        let w = t.random(&[i, o]);
        let y = t.op("MatMul", &[&x, &w], "");
        if rng.chance(50) {
            let b = t.random(&[o]);
            t.op("Add", &[&y, &b], "")
        } else {
            y
        }
    };
    let v = if rng.chance(50) { t.reshaped(&y, &[-1]) } else { t.op("Flatten", &[&y], "axis=1") };
    let k = rng.range(1, 4);
    let shape = rng.pick(&[vec![], vec![1], vec![1, 1, 1], vec![k], vec![k], vec![1]]);
    let s = if rng.chance(8) {
        let count: i64 = shape.iter().product();
        t.constant_of(dtype, &shape, &format!("{:?}", vec![0.0; count as usize]))
    } else {
        t.positive(&shape)
    };
    let y = match rng.range(0, 2) {
        0 => t.op("Mul", &[&v, &s], ""),
        1 => t.op("Mul", &[&s, &v], ""),
        _ => t.op("Div", &[&v, &s], ""),
    };
    t.finish(&y)
}
