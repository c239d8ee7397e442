//! Left sides of the rules about Involution.

use super::{Rng, Text};

/// The sizes of one involution.
struct Sizes {
    batch: String,
    groups: i64,
    per_group: i64,
    /// Along each axis: size, taps, stride, dilation, padding before and behind.
    axes: Vec<[i64; 6]>,
}

impl Sizes {
    fn random(rng: &mut Rng) -> Sizes {
        let spatial = rng.pick(&[1, 2, 2]);
        let axes = (0..spatial)
            .map(|_| {
                loop {
                    let [n, k, s, d] = [rng.range(3, 7), rng.range(1, 3), rng.range(1, 2), rng.range(1, 2)];
                    let (b, e) = (rng.range(0, 2), rng.range(0, 2));
                    let extent = d * (k - 1) + 1;
                    // A tap that never leaves the padding tells nothing.
                    if n + b + e >= extent && d * (k - 1) < n + b && b < n && (n + b + e - extent) / s > 1 {
                        return [n, k, s, d, b, e];
                    }
                }
            })
            .collect();
        let batch = if rng.chance(40) { "N".to_owned() } else { rng.range(1, 2).to_string() };
        Sizes { batch, groups: rng.range(1, 3), per_group: rng.range(1, 3), axes }
    }

    fn taps(&self) -> i64 {
        self.axes.iter().map(|a| a[1]).product()
    }

    fn outputs(&self) -> Vec<i64> {
        self.axes.iter().map(|[n, k, s, d, b, e]| (n + b + e - d * (k - 1) - 1) / s + 1).collect()
    }

    fn channels(&self) -> i64 {
        self.groups * self.per_group
    }

    fn input(&self, t: &mut Text, channels: i64, sizes: &[i64]) -> String {
        let shape: Vec<String> =
            [self.batch.clone(), channels.to_string()].into_iter().chain(sizes.iter().map(i64::to_string)).collect();
        t.input(&shape)
    }

    /// The positions that output p takes for tap t, row-major over (t, p), in the padded map.
    fn positions(axis: [i64; 6]) -> Vec<i64> {
        let [n, k, s, d, b, e] = axis;
        let outputs = (n + b + e - d * (k - 1) - 1) / s + 1;
        (0..k).flat_map(|t| (0..outputs).map(move |p| s * p + d * t)).collect()
    }

    fn padded(&self, t: &mut Text, x: &str) -> String {
        let ends = |i: usize| [0, 0].into_iter().chain(self.axes.iter().map(move |a| a[i]));
        let pads: Vec<i64> = ends(4).chain(ends(5)).collect();
        let pads = t.ints(&pads);
        t.op("Pad", &[x, &pads], "mode=\"constant\"")
    }
}

/// A sum over taps of a kernel map and the neighbours of each position, in one of the spellings that models use; some take one
/// element from another place, or spread channels over the groups.
#[must_use]
pub fn involutions(rng: &mut Rng) -> String {
    let mut t = Text::new(rng, "f32");
    let sizes = Sizes::random(rng);
    let inputs: Vec<i64> = sizes.axes.iter().map(|a| a[0]).collect();
    let x = sizes.input(&mut t, sizes.channels(), &inputs);
    let kernel = sizes.input(&mut t, sizes.groups * sizes.taps(), &sizes.outputs());
    let y = match rng.range(0, 3) {
        0 => slices(rng, &mut t, &sizes, &x, &kernel),
        1 => convolved(rng, &mut t, &sizes, &x, &kernel),
        _ => gathered(rng, &mut t, &sizes, &x, &kernel),
    };
    t.finish(&y)
}

fn shape(parts: &[&[i64]]) -> Vec<i64> {
    parts.concat()
}

/// Neighbours `[N, channels, T.., E..]` by a Gather along each axis, then all products at once.
fn gathered(rng: &mut Rng, t: &mut Text, sizes: &Sizes, x: &str, kernel: &str) -> String {
    let spread = sizes.groups > 1 && sizes.per_group > 1 && rng.chance(20);
    let odd = rng.chance(20);
    let mut y = sizes.padded(t, x);
    for (a, axis) in sizes.axes.iter().enumerate() {
        let mut positions = Sizes::positions(*axis);
        let outputs = positions.len() as i64 / axis[1];
        if odd && a == 0 {
            let at = rng.range(0, positions.len() as i64 - 1) as usize;
            positions[at] = rng.range(0, axis[0] + axis[4] + axis[5] - 1);
        }
        let indices = t.constant_of("i64", &[axis[1], outputs], &format!("{positions:?}"));
        y = t.op("Gather", &[&y, &indices], &format!("axis={}", 2 + 2 * a));
    }
    let spatial = sizes.axes.len() as i64;
    let taps_first: Vec<i64> =
        [0, 1].into_iter().chain((0..spatial).map(|a| 2 + 2 * a)).chain((0..spatial).map(|a| 3 + 2 * a)).collect();
    let y = t.op("Transpose", &[&y], &format!("perm={taps_first:?}"));
    let (g, c, outputs) = (sizes.groups, sizes.per_group, sizes.outputs());
    let split: [i64; 2] = if spread { [c, g] } else { [g, c] };
    let target = t.ints(&shape(&[&[0], &split, &[sizes.taps()], &outputs]));
    let neighbours = t.op("Reshape", &[&y, &target], "allowzero=0");
    let lead: [i64; 2] = if spread { [1, g] } else { [g, 1] };
    let target = t.ints(&shape(&[&[0], &lead, &[sizes.taps()], &outputs]));
    let kernels = t.op("Reshape", &[kernel, &target], "allowzero=0");
    summed(rng, t, sizes, &neighbours, &kernels)
}

/// Neighbours by a depthwise convolution with one-hot kernels.
fn convolved(rng: &mut Rng, t: &mut Text, sizes: &Sizes, x: &str, kernel: &str) -> String {
    let (channels, taps) = (sizes.channels(), sizes.taps());
    let mut hot = vec![0.0; (channels * taps * taps) as usize];
    (0..channels * taps).for_each(|row| hot[(row * taps + row % taps) as usize] = 1.0);
    if rng.chance(15) {
        // One channel takes a tap for another.
        hot[..taps as usize].fill(0.0);
        hot[rng.range(0, taps - 1) as usize] = 1.0;
    }
    let each = |i: usize| sizes.axes.iter().map(|a| a[i]).collect::<Vec<i64>>();
    let w = t.constant_of("f32", &shape(&[&[channels * taps, 1], &each(1)]), &format!("{hot:?}"));
    let attributes = format!(
        "auto_pad=\"NOTSET\", dilations={:?}, group={channels}, pads={:?}, strides={:?}",
        each(3),
        [each(4), each(5)].concat(),
        each(2)
    );
    let y = t.op("Conv", &[x, &w], &attributes);
    let target = t.ints(&shape(&[&[0, sizes.groups, sizes.per_group, taps], &sizes.outputs()]));
    let neighbours = t.op("Reshape", &[&y, &target], "allowzero=0");
    let target = t.ints(&shape(&[&[0, sizes.groups, 1, taps], &sizes.outputs()]));
    let kernels = t.op("Reshape", &[kernel, &target], "allowzero=0");
    summed(rng, t, sizes, &neighbours, &kernels)
}

/// The sum over axis 3 of a product, in the order of axes it has or another one.
fn summed(rng: &mut Rng, t: &mut Text, sizes: &Sizes, neighbours: &str, kernels: &str) -> String {
    let rank = 4 + sizes.axes.len() as i64;
    let factors = if rng.chance(50) { [neighbours, kernels] } else { [kernels, neighbours] };
    let (factors, axis) = if rng.chance(25) {
        let mut perm: Vec<i64> = (0..rank).collect();
        (0..rank).for_each(|i| perm.swap(i as usize, rng.range(0, rank - 1) as usize));
        let axis = perm.iter().position(|&p| p == 3).unwrap_or_default() as i64;
        (factors.map(|f| t.op("Transpose", &[f], &format!("perm={perm:?}"))), axis)
    } else {
        (factors.map(str::to_owned), 3)
    };
    let product = t.op("Mul", &[&factors[0], &factors[1]], "");
    let axes = t.ints(&[if rng.chance(30) { axis - rank } else { axis }]);
    let keep = rng.range(0, 1);
    t.op("ReduceSum", &[&product, &axes], &format!("keepdims={keep}, noop_with_empty_axes=0"))
}

/// One product for each tap, of shifted slices of the padded map and slices of the kernel map, added up.
fn slices(rng: &mut Rng, t: &mut Text, sizes: &Sizes, x: &str, kernel: &str) -> String {
    let spatial = sizes.axes.len();
    let outputs = sizes.outputs();
    let padded = sizes.padded(t, x);
    let split = t.ints(&shape(&[&[0, sizes.groups, sizes.per_group], &outputs]));
    let target = t.ints(&shape(&[&[0, sizes.groups, sizes.taps()], &outputs]));
    let kernels = t.op("Reshape", &[kernel, &target], "allowzero=0");
    let odd = if rng.chance(15) { rng.range(0, sizes.taps() - 1) } else { -1 };
    let mut terms = Vec::new();
    for tap in 0..sizes.taps() {
        let (mut starts, mut ends, mut rest) = (vec![0; spatial], vec![0; spatial], tap);
        for a in (0..spatial).rev() {
            let [n, k, s, d, b, e] = sizes.axes[a];
            starts[a] = rest % k * d;
            if tap == odd && starts[a] + s * (outputs[a] - 1) + 1 < n + b + e {
                starts[a] += 1;
            }
            ends[a] = starts[a] + s * (outputs[a] - 1) + 1;
            rest /= k;
        }
        let axes: Vec<i64> = (2..2 + spatial as i64).collect();
        let steps: Vec<i64> = sizes.axes.iter().map(|a| a[2]).collect();
        let [s, e, a, p] = [&starts, &ends, &axes, &steps].map(|v| t.ints(v));
        let shifted = t.op("Slice", &[&padded, &s, &e, &a, &p], "");
        let shifted = t.op("Reshape", &[&shifted, &split], "allowzero=0");
        let [s, e, a] = [[tap], [tap + 1], [2]].map(|v| t.ints(&v));
        let own = t.op("Slice", &[&kernels, &s, &e, &a], "");
        let factors = if rng.chance(50) { [&shifted, &own] } else { [&own, &shifted] };
        terms.push(t.op("Mul", &[factors[0], factors[1]], ""));
    }
    if rng.chance(20) {
        let zeros = t.op("Relu", &[&padded], "");
        let zeros = t.op("GlobalMaxPool", &[&zeros], "");
        let one = t.ints(&shape(&[&[0, sizes.groups, sizes.per_group], &vec![1; spatial]]));
        terms.push(t.op("Reshape", &[&zeros, &one], "allowzero=0"));
    }
    while terms.len() > 1 {
        let b = terms.remove(rng.range(0, terms.len() as i64 - 1) as usize);
        let at = rng.range(0, terms.len() as i64 - 1) as usize;
        terms[at] = t.op("Add", &[&terms[at].clone(), &b], "");
    }
    terms.remove(0)
}
