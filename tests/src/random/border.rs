//! Left sides of the rules about borders.

use super::{Rng, Text, fixed, map};

/// Numbers with few bits, one for each channel.
fn numbers(rng: &mut Rng, count: i64) -> Vec<f64> {
    (0..count).map(|_| rng.range(-8, 8) as f64 / 4.0).collect()
}

/// `values[c]` at each index of `axis`.
fn spread(shape: &[i64], axis: usize, values: &[f64]) -> Vec<f64> {
    let inner: i64 = shape[axis + 1..].iter().product();
    let count: i64 = shape.iter().product();
    (0..count).map(|i| values[(i / inner % shape[axis]) as usize]).collect()
}

/// What is known while a border is painted.
struct Painter {
    y: String,
    /// Sizes with the border.
    shape: Vec<String>,
    /// The values as a constant `[C, 1..]`.
    values: Vec<f64>,
}

impl Painter {
    fn sizes(&self) -> Option<Vec<i64>> {
        self.shape.iter().map(|s| s.parse().ok()).collect()
    }

    /// The rows from `start` to `end` of an axis, as exporters write it: the axis first, then rows by their numbers.
    fn rows(&mut self, rng: &mut Rng, t: &mut Text, axis: usize, (start, end): (i64, i64)) {
        let rank = self.shape.len();
        let mut perm: Vec<usize> = (0..rank).collect();
        perm.swap(0, axis);
        let turned = t.op("Transpose", &[&self.y], &format!("perm={perm:?}"));
        let count = (end - start).max(0);
        let index = if rng.chance(50) {
            let size = t.op("Shape", &[&self.y], &format!("start={axis}, end={}", axis + 1));
            let size = t.op("Squeeze", &[&size], "");
            let (zero, one) = (t.constant_of("i64", &[], "[0]"), t.constant_of("i64", &[], "[1]"));
            let all = t.op("Range", &[&zero, &size, &one], "");
            let to = if start < 0 && end == 0 { i64::MAX } else { end };
            let bounds = [start, to, 0, 1].map(|n| t.ints(&[n]));
            let operands: Vec<&str> = std::iter::once(&all).chain(&bounds).map(String::as_str).collect();
            let some = t.op("Slice", &operands, "");
            let last = t.ints(&[-1]);
            t.op("Unsqueeze", &[&some, &last], "")
        } else {
            let v: Vec<i64> = (start..end).collect();
            t.constant_of("i64", &[count, 1], &format!("{v:?}"))
        };
        let channels = self.values.len() as i64;
        let update = match (self.sizes(), rng.chance(50)) {
            (Some(sizes), true) => {
                let shape: Vec<i64> = perm.iter().map(|&p| if p == axis { count } else { sizes[p] }).collect();
                let v = spread(&shape, 1, &self.values);
                t.constant_of(t.dtype, &shape, &format!("{v:?}"))
            }
            _ => {
                let per: Vec<i64> = [channels].into_iter().chain(vec![1; rank - 2]).collect();
                let v = t.constant_of(t.dtype, &per, &format!("{:?}", self.values));
                let size = t.op("Shape", &[&turned], "start=0");
                let (from, to, first, rows) = (t.ints(&[1]), t.ints(&[rank as i64]), t.ints(&[0]), t.ints(&[count]));
                let rest = t.op("Slice", &[&size, &from, &to, &first], "");
                let shape = t.op("Concat", &[&rows, &rest], "axis=0");
                t.op("Expand", &[&v, &shape], "")
            }
        };
        let written = t.op("ScatterND", &[&turned, &index, &update], "reduction=\"none\"");
        self.y = t.op("Transpose", &[&written], &format!("perm={perm:?}"));
    }

    /// The same by the numbers of all elements, or by a mask, where sizes are fixed.
    fn elements(&mut self, rng: &mut Rng, t: &mut Text, axis: usize, (start, end): (i64, i64)) -> bool {
        let Some(sizes) = self.sizes() else { return false };
        let (start, end) = if start < 0 { (start + sizes[axis], end + sizes[axis]) } else { (start, end) };
        if start < 0 || end > sizes[axis] || sizes.contains(&0) {
            return false;
        }
        if rng.chance(50) {
            let shape: Vec<i64> = (0..sizes.len()).map(|a| if a == axis { sizes[a] } else { 1 }).collect();
            let bits: Vec<i64> = (0..sizes[axis]).map(|p| i64::from((start..end).contains(&p))).collect();
            let mask = t.constant_of("bool", &shape, &format!("{bits:?}"));
            let per: Vec<i64> = [self.values.len() as i64].into_iter().chain(vec![1; sizes.len() - 2]).collect();
            let v = t.constant_of(t.dtype, &per, &format!("{:?}", self.values));
            self.y = t.op("Where", &[&mask, &v, &self.y], "");
            return true;
        }
        let mut shape = sizes.clone();
        shape[axis] = end - start;
        let v = spread(&shape, 1, &self.values);
        let mut index = Vec::new();
        for mut at in crate::oracle::indices(&shape) {
            at[axis] += start;
            index.extend(at);
        }
        let update = t.constant_of(t.dtype, &shape, &format!("{v:?}"));
        shape.push(sizes.len() as i64);
        let index = t.constant_of("i64", &shape, &format!("{index:?}"));
        self.y = t.op("ScatterND", &[&self.y, &index, &update], "reduction=\"none\"");
        true
    }
}

/// A map, or a convolution of one, in a border that is painted in one of the ways in which exporters write assignments. With
/// `bias` the border mostly holds the convolution's bias.
#[must_use]
pub fn filled_border(rng: &mut Rng, bias: bool) -> String {
    let c = rng.range(1, 3);
    let mut x = map(rng, c);
    if x.spatial() == 3 {
        x.sizes.pop();
    }
    let n = x.spatial();
    let mut t = Text::new(rng, "f64");
    let input = t.input(&x.dims());
    let of_conv = bias || rng.chance(30);
    let own = numbers(rng, c);
    let y = if of_conv {
        let kernel: Vec<i64> = [c, c].into_iter().chain(vec![1; n]).collect();
        let w = t.random(&kernel);
        let b = t.constant_of("f64", &[c], &format!("{own:?}"));
        let (ones, none) = (vec![1; n], vec![0; 2 * n]);
        let attributes = format!("auto_pad=\"NOTSET\", dilations={ones:?}, group=1, pads={none:?}, strides={ones:?}");
        t.op("Conv", &[&input, &w, &b], &attributes)
    } else {
        t.op("Relu", &[&input], "")
    };
    let values = if bias && rng.chance(85) { own } else { numbers(rng, c) };
    let mut pads: Vec<(i64, i64)> = (0..n).map(|_| (rng.range(0, 2), rng.range(0, 2))).collect();
    pads[0].0 = pads[0].0.max(1);
    let widened = |d: &str, p: (i64, i64)| {
        d.parse::<i64>().map_or_else(|_| format!("{d} + {}", p.0 + p.1), |d| (d + p.0 + p.1).to_string())
    };
    let shape: Vec<String> =
        x.dims()[..2].iter().cloned().chain(x.sizes.iter().zip(&pads).map(|(d, p)| widened(d, *p))).collect();
    let all: Vec<i64> =
        [0, 0].into_iter().chain(pads.iter().map(|p| p.0)).chain([0, 0]).chain(pads.iter().map(|p| p.1)).collect();
    let all = t.ints(&all);
    let y = t.op("Pad", &[&y, &all], "mode=\"constant\"");
    let mut slabs: Vec<(usize, (i64, i64))> = Vec::new();
    for (a, p) in pads.iter().enumerate() {
        slabs.push((a + 2, (0, p.0)));
        slabs.push((a + 2, (-p.1, 0)));
    }
    slabs.retain(|(_, (start, end))| start != end);
    let mut painter = Painter { y, shape, values };
    // A row too many, which belongs to the map, or values of another kind.
    let spoiled = rng.range(0, 9);
    if spoiled == 0 {
        slabs[0].1.1 += 1;
    } else if spoiled == 1 && fixed(&painter.shape[slabs[0].0]) > pads[slabs[0].0 - 2].0 + 1 {
        let row = pads[slabs[0].0 - 2].0;
        slabs.push((slabs[0].0, (row, row + 1)));
    }
    let other = rng.range(0, slabs.len() as i64 * 6) as usize;
    while !slabs.is_empty() {
        let slab = slabs.remove(rng.range(0, slabs.len() as i64 - 1) as usize);
        let kept = painter.values.clone();
        if slabs.len() == other {
            painter.values[0] += 1.0;
        }
        if !(rng.chance(50) && painter.elements(rng, &mut t, slab.0, slab.1)) {
            painter.rows(rng, &mut t, slab.0, slab.1);
        }
        painter.values = kept;
    }
    let y = painter.y;
    t.finish(&y)
}

/// A padded map and a constant of its size, which mostly is one number inside and one on the border; a convolution before.
pub fn constant_border(rng: &mut Rng) -> String {
    let (c, n) = (rng.range(1, 3), rng.range(1, 2) as usize);
    let mut t = Text::new(rng, "f64");
    let sizes: Vec<i64> = (0..n).map(|_| rng.range(1, 4)).collect();
    let batch = rng.pick(&["N", "1", "2"]).to_owned();
    let input =
        t.input(&[batch, c.to_string()].into_iter().chain(sizes.iter().map(i64::to_string)).collect::<Vec<_>>());
    let own = numbers(rng, c);
    let of_conv = rng.chance(60);
    let y = if of_conv {
        let w = t.random(&[c, c].into_iter().chain(vec![1; n]).collect::<Vec<_>>());
        let b = t.constant_of("f64", &[c], &format!("{own:?}"));
        let (ones, none) = (vec![1; n], vec![0; 2 * n]);
        let attributes = format!("auto_pad=\"NOTSET\", dilations={ones:?}, group=1, pads={none:?}, strides={ones:?}");
        t.op("Conv", &[&input, &w, &b], &attributes)
    } else {
        t.op("Relu", &[&input], "")
    };
    let mut pads: Vec<(i64, i64)> = (0..n).map(|_| (rng.range(0, 2), rng.range(0, 2))).collect();
    pads[0].0 = pads[0].0.max(1);
    let begins = pads.iter().map(|p| p.0);
    // A sample more.
    let more = i64::from(rng.chance(12));
    let all: Vec<i64> = [more, 0].into_iter().chain(begins).chain([0, 0]).chain(pads.iter().map(|p| p.1)).collect();
    let all = t.ints(&all);
    let mode = if rng.chance(90) { "constant" } else { "edge" };
    let value = if rng.chance(10) { t.constant_of("f64", &[], "[0.5]") } else { "_".to_owned() };
    let y = t.op("Pad", &[&y, &all, &value], &format!("mode=\"{mode}\""));
    let border = numbers(rng, c);
    let inside: Vec<f64> = match rng.range(0, 3) {
        0 => border.clone(),
        1 if of_conv => border.iter().zip(&own).map(|(o, b)| o - b).collect(),
        _ => numbers(rng, c),
    };
    let shape: Vec<i64> = sizes.iter().zip(&pads).map(|(s, p)| s + p.0 + p.1).collect();
    let channels = if rng.chance(15) { 1 } else { c };
    let positions: i64 = shape.iter().product();
    let mut values = Vec::new();
    for k in 0..channels as usize {
        for position in 0..positions {
            let (mut rest, mut outside) = (position, false);
            for axis in (0..n).rev() {
                let at = rest % shape[axis];
                rest /= shape[axis];
                outside |= at < pads[axis].0 || at >= shape[axis] - pads[axis].1;
            }
            values.push(if outside { border[k] } else { inside[k] });
        }
    }
    if rng.chance(30) {
        let odd = rng.range(0, values.len() as i64 - 1) as usize;
        values[odd] += 1.0;
    }
    let shape: Vec<i64> = [1, channels].into_iter().chain(shape).collect();
    let m = t.constant_of("f64", &shape, &format!("{values:?}"));
    let operands = if rng.chance(50) { [&y, &m] } else { [&m, &y] };
    let z = t.op("Add", &[operands[0], operands[1]], "");
    t.finish(&z)
}
