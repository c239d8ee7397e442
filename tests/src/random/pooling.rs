//! Left sides of the rules about pooling, resampling and transposed convolutions.

use super::{
    MapShape, Rng, Text,
    conv::{Bias, Shape, bias},
    map,
};

/// A pointwise convolution to `outputs` channels, now and then one that is not quite.
fn pointwise(rng: &mut Rng, c: i64, outputs: i64, n: usize) -> Shape {
    let mut s = Shape::random(rng, outputs, 1, n);
    s.taps.fill(1);
    s.strides.fill(1);
    s.begin.fill(0);
    s.end.fill(0);
    if outputs == c && rng.chance(40) {
        s.group = c;
    }
    if rng.chance(8) {
        s.strides[0] = 2;
    }
    s
}

fn list(s: &Shape) -> Vec<i64> {
    s.begin.iter().chain(&s.end).copied().collect()
}

fn average(rng: &mut Rng, t: &mut Text, x: &str, n: usize) -> String {
    let mut s = Shape::random(rng, 1, 1, n);
    if rng.chance(40) {
        s.begin.fill(0);
        s.end.fill(0);
    }
    if rng.chance(15) {
        s.end[0] = s.reach(0) + rng.range(0, 2);
    }
    let attributes = format!(
        "auto_pad=\"NOTSET\", ceil_mode={}, count_include_pad={}, dilations={:?}, kernel_shape={:?}, pads={:?}, strides={:?}",
        rng.range(0, 1),
        rng.range(0, 1),
        s.dilations,
        s.taps,
        list(&s),
        s.strides
    );
    t.op("AveragePool", &[x], &attributes)
}

/// A pointwise convolution and an average pool, in either order.
#[must_use]
pub fn pointwise_and_average(rng: &mut Rng, pool_first: bool) -> String {
    let (c, o) = (rng.range(1, 3), rng.range(1, 3));
    let x = map(rng, c);
    let mut t = Text::new(rng, "f64");
    let input = t.input(&x.dims());
    let s = pointwise(rng, c, o, x.spatial());
    let b = bias(rng);
    let y = if pool_first {
        let y = average(rng, &mut t, &input, x.spatial());
        t.conv(&y, c, &s, b)
    } else {
        let y = t.conv(&input, c, &s, b);
        average(rng, &mut t, &y, x.spatial())
    };
    t.finish(&y)
}

/// A pointwise convolution behind a Resize.
#[must_use]
pub fn resize_conv(rng: &mut Rng) -> String {
    let (c, o) = (rng.range(2, 3), rng.range(1, 3));
    let mut x = map(rng, c);
    if x.spatial() == 3 {
        x.sizes.pop();
    }
    let n = x.spatial();
    let mut t = Text::new(rng, "f64");
    let input = t.input(&x.dims());
    let (mode, coordinates) = rng.pick(&[
        ("nearest", "asymmetric"),
        ("nearest", "half_pixel"),
        ("linear", "half_pixel"),
        ("linear", "align_corners"),
        ("linear", "asymmetric"),
    ]);
    let nearest = if coordinates == "half_pixel" { "round_prefer_floor" } else { "floor" };
    // All axes, or the spatial ones alone.
    let all = rng.chance(60);
    let lead = if all { 2 } else { 0 };
    let axes: Vec<i64> = if all { Vec::new() } else { (2..n as i64 + 2).collect() };
    let attributes = format!(
        "mode=\"{mode}\", coordinate_transformation_mode=\"{coordinates}\", nearest_mode=\"{nearest}\", \
         cubic_coeff_a=-0.75, exclude_outside=0, extrapolation_value=0.0, antialias=0, axes={axes:?}, \
         keep_aspect_ratio_policy=\"stretch\""
    );
    let fixed: Option<Vec<i64>> = x.dims().iter().map(|d| d.parse().ok()).collect();
    let y = match fixed {
        Some(sizes) if rng.chance(50) => {
            let to: Vec<i64> = sizes[2 - lead..]
                .iter()
                .enumerate()
                .map(|(a, &d)| if a < lead { d } else { d * rng.range(1, 2) + rng.range(0, 1) })
                .collect();
            let to = t.ints(&to);
            t.op("Resize", &[&input, "_", "_", &to], &attributes)
        }
        _ => {
            let mut scales = vec![1.0; lead];
            // A scale that keeps the number of channels and not the channels.
            if all && rng.chance(25) {
                scales[1] = 1.25;
            }
            scales.extend((0..n).map(|_| rng.pick(&[1.0, 2.0, 2.0, 3.0, 0.5])));
            let scales = t.constant_of("f32", &[scales.len() as i64], &format!("{scales:?}"));
            t.op("Resize", &[&input, "_", &scales], &attributes)
        }
    };
    let s = pointwise(rng, c, o, n);
    let b = bias(rng);
    let z = t.conv(&y, c, &s, b);
    t.finish(&z)
}

fn max_pool(rng: &mut Rng, t: &mut Text, x: &str, n: usize, ceil: bool) -> String {
    let mut s = Shape::random(rng, 1, 1, n);
    s.begin = s.begin.iter().map(|&b| b.min(1)).collect();
    s.end = s.end.iter().map(|&b| b.min(1)).collect();
    if rng.chance(12) {
        s.end[0] = s.reach(0) + rng.range(0, 2);
    }
    let ceil = i64::from(ceil && rng.chance(30));
    let attributes = format!(
        "auto_pad=\"NOTSET\", ceil_mode={ceil}, dilations={:?}, kernel_shape={:?}, pads={:?}, strides={:?}, indices=0, \
         column_major=0",
        s.dilations,
        s.taps,
        list(&s),
        s.strides
    );
    t.op("MaxPool", &[x], &attributes)
}

/// A MaxPool behind one that mostly has a stride of 1.
#[must_use]
pub fn pool_of_pool(rng: &mut Rng) -> String {
    // Two grids and a single window, so that sizes agree where the reach does not.
    let apart = rng.chance(8);
    // A last window that begins behind the inner map but not behind the input.
    let late = !apart && rng.chance(8);
    let x = match (apart, late) {
        (true, _) => MapShape { batch: "1".into(), channels: 1, sizes: vec!["9".into()] },
        (_, true) => MapShape { batch: "1".into(), channels: 1, sizes: vec!["H".into()] },
        _ => map(rng, 1),
    };
    let n = x.spatial();
    let mut t = Text::new(rng, "f64");
    let input = t.input(&x.dims());
    let dilations: Vec<i64> = (0..n).map(|_| rng.pick(&[1, 1, 1, 2])).collect();
    let mut pool = |t: &mut Text, x: &str, inner: bool| {
        let mut s = Shape::random(rng, 1, 1, n);
        if rng.chance(85) {
            s.dilations.clone_from(&dilations);
        }
        if inner && rng.chance(85) {
            s.strides.fill(1);
        }
        for a in 0..n {
            let reach = s.reach(a);
            // Pads as of a result of the same size, or any.
            (s.begin[a], s.end[a]) = if rng.chance(50) {
                (reach / 2, reach - reach / 2)
            } else {
                (rng.range(0, reach.min(2)), rng.range(0, reach.min(2)))
            };
            if rng.chance(4) {
                s.begin[a] = reach + rng.range(0, 1);
            }
            if rng.chance(8) {
                s.end[a] = reach + rng.range(0, 2);
            }
        }
        if apart {
            s.taps.fill(2);
            s.dilations.fill(if inner { 1 } else { 3 });
            s.strides.fill(if inner { 1 } else { 16 });
            s.begin.fill(0);
            s.end.fill(0);
        }
        if late {
            s.taps.fill(if inner { 3 } else { 2 });
            s.dilations.fill(1);
            s.strides.fill(if inner { 1 } else { 2 });
            s.begin.fill(0);
            s.end.fill(i64::from(!inner));
        }
        let ceil = i64::from(late || (rng.chance(20) && !apart));
        let attributes = format!(
            "auto_pad=\"NOTSET\", ceil_mode={ceil}, dilations={:?}, kernel_shape={:?}, pads={:?}, strides={:?}, indices=0, \
             column_major=0",
            s.dilations,
            s.taps,
            list(&s),
            s.strides
        );
        t.op("MaxPool", &[x], &attributes)
    };
    let y = pool(&mut t, &input, true);
    let z = pool(&mut t, &y, false);
    t.finish(&z)
}

/// A padded map under a MaxPool, mostly one without negative elements.
#[must_use]
pub fn pad_max_pool(rng: &mut Rng) -> String {
    let c = rng.range(1, 2);
    let x: MapShape = map(rng, c);
    let n = x.spatial();
    let mut t = Text::new(rng, "f64");
    let mut y = t.input(&x.dims());
    if rng.chance(70) {
        y = t.op(rng.pick(&["Relu", "Sigmoid", "Abs"]), &[&y], "");
        if rng.chance(30) {
            y = t.op("Add", &[&y, &y], "");
        }
    }
    let mut pads: Vec<i64> = (0..2 * (n + 2)).map(|_| rng.pick(&[0, 0, 1])).collect();
    (0..2).for_each(|a| (pads[a], pads[n + 2 + a]) = (0, 0));
    match rng.range(0, 11) {
        0 => pads[0] = 1,
        1 => pads[n + 3] = 1,
        2 => pads[2] = -1,
        3 => pads[2] = 3,
        _ => {}
    }
    let pads = t.ints(&pads);
    let value = match rng.range(0, 9) {
        0 => t.constant_of("f64", &[], "[-0.5]"),
        1 => t.constant_of("f64", &[], "[0.5]"),
        2 => t.constant_of("f64", &[], "[-inf]"),
        3 => t.constant_of("f64", &[], "[0.0]"),
        _ => "_".to_owned(),
    };
    let mode = if rng.chance(90) { "constant" } else { rng.pick(&["reflect", "edge"]) };
    let y = t.op("Pad", &[&y, &pads, &value], &format!("mode=\"{mode}\""));
    let ceil = rng.chance(30);
    let z = max_pool(rng, &mut t, &y, n, ceil);
    t.finish(&z)
}

/// An activation behind a MaxPool behind a convolution.
#[must_use]
pub fn pooled_activation(rng: &mut Rng) -> String {
    let c = rng.range(1, 2);
    let x = map(rng, c);
    let n = x.spatial();
    let mut t = Text::new(rng, "f64");
    let input = t.input(&x.dims());
    let s = pointwise(rng, c, c, n);
    let b = bias(rng);
    let y = t.conv(&input, c, &s, b);
    let y = max_pool(rng, &mut t, &y, n, true);
    let z = if rng.chance(60) {
        t.op("Relu", &[&y], "")
    } else {
        let (low, high) = (t.constant_of("f64", &[], "[-0.5]"), t.constant_of("f64", &[], "[0.75]"));
        t.op("Clip", &[&y, &low, &high], "")
    };
    t.finish(&z)
}

/// A transposed convolution and a pointwise one, in either order.
#[must_use]
pub fn transposed(rng: &mut Rng, pointwise_first: bool) -> String {
    let (c, m, o) = (rng.pick(&[1, 2, 4]), rng.pick(&[1, 2, 4]), rng.pick(&[1, 2, 4]));
    let x = map(rng, c);
    let n = x.spatial();
    let mut t = Text::new(rng, "f64");
    let input = t.input(&x.dims());
    let b = if pointwise_first { rng.pick(&[Bias::None, Bias::Zero, Bias::Random]) } else { bias(rng) };
    let convt = |t: &mut Text, rng: &mut Rng, x: &str, from: i64, to: i64| {
        let s = Shape::random(rng, to, 1, n);
        let group = if rng.chance(50) { 1 } else { rng.divisor(from.min(to)) };
        let kernel: Vec<i64> = [from, to / group].into_iter().chain(s.taps.iter().copied()).collect();
        let w = t.random(&kernel);
        let own = if rng.chance(50) { t.random(&[to]) } else { "_".to_owned() };
        let more: Vec<i64> = (0..n).map(|a| rng.range(0, s.strides[a].max(s.dilations[a]) - 1)).collect();
        let attributes = format!(
            "auto_pad=\"NOTSET\", dilations={:?}, group={group}, pads={:?}, strides={:?}, output_padding={more:?}, \
             output_shape=[]",
            s.dilations,
            list(&s),
            s.strides
        );
        t.op("ConvTranspose", &[x, &w, &own], &attributes)
    };
    let y = if pointwise_first {
        let s = pointwise(rng, c, m, n);
        let y = t.conv(&input, c, &s, b);
        convt(&mut t, rng, &y, m, o)
    } else {
        let y = convt(&mut t, rng, &input, c, m);
        let s = pointwise(rng, m, o, n);
        t.conv(&y, m, &s, b)
    };
    t.finish(&y)
}

/// A BatchNormalization behind a product with a matrix.
#[must_use]
pub fn normalised_product(rng: &mut Rng) -> String {
    let (k, n) = (rng.range(1, 3), rng.range(1, 4));
    let mut t = Text::new(rng, "f64");
    let rows = rng.pick(&["N".to_owned(), "1".to_owned(), "3".to_owned(), n.to_string()]);
    let x = t.input(&[rows.clone(), k.to_string()]);
    let y = if rng.chance(40) {
        let w = t.random(&[k, n]);
        t.op("MatMul", &[&x, &w], "")
    } else {
        let turned = rng.chance(50);
        let w = t.random(&if turned { [n, k] } else { [k, n] });
        let c = match rng.range(0, 4) {
            0 => "_".to_owned(),
            1 => t.random(&[1, n]),
            2 => t.random(&[1]),
            // A number for each row, where there are as many.
            3 if rows == n.to_string() => t.random(&[n, 1]),
            _ => t.random(&[n]),
        };
        let beta = if rng.chance(10) { "0.5" } else { "1.0" };
        let attributes = format!("alpha=1.0, beta={beta}, trans_a=0, trans_b={}", i64::from(turned));
        t.op("Gemm", &[&x, &w, &c], &attributes)
    };
    let spoiled = rng.chance(30);
    let (gamma, beta, mean) = (t.random(&[n]), t.random(&[n]), t.random(&[n]));
    let variance =
        if spoiled { t.constant_of("f64", &[n], &format!("{:?}", vec![-1.0; n as usize])) } else { t.positive(&[n]) };
    let z = t.op("BatchNormalization", &[&y, &gamma, &beta, &mean, &variance], "epsilon=1e-5");
    t.finish(&z)
}
