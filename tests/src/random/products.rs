//! Products with constant matrices: BatchNormalization before and behind them, views between, and sums of them.

use super::{Rng, Text};

/// A matrix and a shift, as Gemm or MatMul: the product of `x` with `rows` columns.
fn product(rng: &mut Rng, t: &mut Text, x: &str, rows: i64, columns: i64, square: bool) -> String {
    if rng.chance(30) {
        let w = t.random(&[rows, columns]);
        return t.op("MatMul", &[x, &w], "");
    }
    let turned = rng.chance(50);
    let w = t.random(&if turned { [columns, rows] } else { [rows, columns] });
    let c = match rng.range(0, 5) {
        0 => "_".to_owned(),
        1 => t.random(&[1, columns]),
        2 => t.random(&[1]),
        // A number for each row, where there are as many.
        3 => t.random(&[columns, 1]),
        _ => t.random(&[columns]),
    };
    let factor = if rng.chance(10) { "0.5" } else { "1.0" };
    let beta = if rng.chance(10) { "0.5" } else { "1.0" };
    // Of a square map the transposed one has the same shape.
    let transposed = i64::from(square && rng.chance(40));
    let attributes = format!("alpha={factor}, beta={beta}, trans_a={transposed}, trans_b={}", i64::from(turned));
    t.op("Gemm", &[x, &w, &c], &attributes)
}

fn norm(rng: &mut Rng, t: &mut Text, x: &str, channels: i64) -> String {
    let (gamma, beta, mean) = (t.random(&[channels]), t.random(&[channels]), t.random(&[channels]));
    let variance = if rng.chance(15) {
        t.constant_of("f64", &[channels], &format!("{:?}", vec![-1.0; channels as usize]))
    } else {
        t.positive(&[channels])
    };
    t.op("BatchNormalization", &[x, &gamma, &beta, &mean, &variance], "epsilon=1e-5")
}

/// BatchNormalization before a product: of columns, or of a map that a view makes rows of. The view may mix samples.
pub fn product_of_normalised(rng: &mut Rng) -> String {
    let mut t = Text::new(rng, "f64");
    let (c, n) = (rng.range(1, 4), rng.range(1, 4));
    let batch = rng.pick(&["N", "1", "2", "4"]);
    let sizes: Vec<i64> = (0..rng.range(0, 2)).map(|_| rng.pick(&[1, 1, 2, 3])).collect();
    let dims: Vec<String> =
        [batch.to_owned(), c.to_string()].into_iter().chain(sizes.iter().map(i64::to_string)).collect();
    let x = t.input(&dims);
    let mut y = norm(rng, &mut t, &x, c);
    let mut rows = c * sizes.iter().product::<i64>();
    if sizes.is_empty() {
        // As it is: rows of channels.
    } else if rng.chance(40) {
        y = t.op("Flatten", &[&y], "axis=1");
    } else {
        if batch != "N" && rng.chance(40) {
            // Rows that are a part of a sample, or several samples.
            let samples: i64 = batch.parse().unwrap_or(1);
            rows = rng.divisor(rows * samples);
        }
        let target = t.ints(&[-1, rows]);
        y = t.op("Reshape", &[&y, &target], "allowzero=0");
    }
    let z = product(rng, &mut t, &y, rows, n, false);
    t.finish(&z)
}

/// BatchNormalization of rows that a view joins: the outputs of a product whose operand has more axes than two.
pub fn normalised_rows(rng: &mut Rng) -> String {
    let mut t = Text::new(rng, "f64");
    let (k, n) = (rng.range(1, 3), rng.pick(&[1, 2, 4]));
    let x = t.input(&[rng.pick(&["N", "1", "2"]).to_owned(), rng.pick(&["L", "2", "3"]).to_owned(), k.to_string()]);
    let w = t.random(&[k, n]);
    let mut y = t.op("MatMul", &[&x, &w], "");
    match rng.range(0, 5) {
        0 => {
            let c = t.random(&[n]);
            y = t.op("Add", &[&y, &c], "");
        }
        1 => {
            let c = t.random(&[n]);
            y = t.op("Add", &[&c, &y], "");
        }
        2 => {
            let c = t.random(&[1]);
            y = t.op("Add", &[&y, &c], "");
        }
        _ => {}
    }
    let mut channels = n;
    let y = if rng.chance(50) {
        t.op("Flatten", &[&y], "axis=2")
    } else {
        if rng.chance(25) {
            // Pieces of a row.
            channels = rng.divisor(n);
        }
        let target = t.ints(&[-1, channels]);
        t.op("Reshape", &[&y, &target], "allowzero=0")
    };
    let z = norm(rng, &mut t, &y, channels);
    t.finish(&z)
}

/// A sum or a difference of products, mostly of the same rows.
pub fn products_of_one(rng: &mut Rng) -> String {
    let mut t = Text::new(rng, "f64");
    let (k, n) = (rng.range(1, 3), rng.range(1, 4));
    let square = rng.chance(25);
    let batch = if square { k.to_string() } else { rng.pick(&["N", "1", "3"]).to_owned() };
    let dims = [batch, k.to_string()];
    let x = t.input(&dims);
    let other = if rng.chance(15) { t.input(&dims) } else { x.clone() };
    let a = product(rng, &mut t, &x, k, n, square);
    let width = if rng.chance(15) { 1 } else { n };
    let b = product(rng, &mut t, &other, k, width, square);
    let z = t.op(rng.pick(&["Add", "Sub"]), &[&a, &b], "");
    t.finish(&z)
}

/// A depthwise 1x1 convolution, channels made the last axis, and a product: or another axis, or other groups.
pub fn rows_of_scaled(rng: &mut Rng) -> String {
    let mut t = Text::new(rng, "f64");
    let (c, n) = (rng.pick(&[1, 2, 4]), rng.range(1, 3));
    // As many positions as channels, at times.
    let positions = if rng.chance(30) { c } else { rng.range(1, 6) };
    let batch = rng.pick(&["N", "1", "2"]).to_owned();
    let x = t.input(&[batch, c.to_string(), positions.to_string()]);
    let group = if rng.chance(80) { c } else { 1 };
    let w = t.random(&[c, c / group, 1]);
    let b = if rng.chance(70) { t.random(&[c]) } else { "_".to_owned() };
    let window = format!("auto_pad=\"NOTSET\", dilations=[1], group={group}, pads=[0, 0], strides=[1]");
    let y = t.op("Conv", &[&x, &w, &b], &window);
    let (perm, rows) = if rng.chance(80) { ([0, 2, 1], c) } else { ([1, 0, 2], positions) };
    let y = t.op("Transpose", &[&y], &format!("perm={perm:?}"));
    let w = t.random(&[rows, n]);
    let mut z = t.op("MatMul", &[&y, &w], "");
    if rng.chance(60) {
        let c = t.random(&[n]);
        z = if rng.chance(50) { t.op("Add", &[&c, &z], "") } else { t.op("Add", &[&z, &c], "") };
    }
    t.finish(&z)
}

/// A view of a depthwise 1x1 convolution, or of another one: one that joins or parts positions, or channels and samples too.
pub fn view_of_scaled(rng: &mut Rng) -> String {
    let mut t = Text::new(rng, "f64");
    let (c, m, n) = (rng.pick(&[1, 2, 4]), rng.range(1, 3), rng.range(1, 4));
    let batch = rng.pick(&["N", "1", "2"]).to_owned();
    let flat = rng.chance(50);
    let spatial = if flat { 1 } else { 2 };
    let places = if flat { vec![m * n] } else { vec![m, n] };
    let dims = [batch.clone(), c.to_string()].into_iter().chain(places.iter().map(i64::to_string)).collect::<Vec<_>>();
    let x = t.input(&dims);
    let group = if rng.chance(80) { c } else { 1 };
    let w = t.random(&[c, c / group].into_iter().chain(vec![1; spatial]).collect::<Vec<_>>());
    let b = if rng.chance(70) { t.random(&[c]) } else { "_".to_owned() };
    let (ones, none) = (vec![1; spatial], vec![0; 2 * spatial]);
    let window = format!("auto_pad=\"NOTSET\", dilations={ones:?}, group={group}, pads={none:?}, strides={ones:?}");
    let y = t.op("Conv", &[&x, &w, &b], &window);
    let cut = rng.divisor(m * n);
    let sizes = match rng.range(0, 6) {
        0 => vec![-1, c * cut, m * n / cut],
        1 if c % 2 == 0 => vec![-1, c / 2, 2 * m * n],
        2 => vec![c, -1, m * n],
        3 => vec![-1, c, cut, m * n / cut],
        4 => vec![0, 0, -1, cut],
        _ if flat => vec![-1, c, m, n],
        _ => vec![0, c, m * n],
    };
    let target = t.ints(&sizes);
    let z = t.op("Reshape", &[&y, &target], "allowzero=0");
    t.finish(&z)
}
