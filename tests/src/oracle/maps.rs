//! The formulas of pooling, resampling and assignment.

use convc_runtime::{
    Op,
    ops::{
        ConvTranspose, Gemm, MaxPool, Resize,
        resize::{CoordinateMode, NearestMode, ResizeMode},
        variadic::VariadicKind,
    },
    scalar::Scalar,
    window::AutoPad,
};

use super::{
    Array, Elements, indices, offset,
    ops::{Operands, binary, broadcast, need, pick, positions},
};

/// One operator of this file.
pub(super) fn apply<S: Scalar>(op: &Op, operands: &Operands<'_, S>) -> Result<Array<S>, String> {
    let x = need(operands, 0)?;
    match op {
        Op::MaxPool(op) => max_pool(op, x),
        Op::ConvTranspose(op) => conv_transpose(op, x, need(operands, 1)?, operands.get(2).copied().flatten()),
        Op::Resize(op) => resize(op, operands),
        Op::Variadic(op) => {
            let mut y = x.clone();
            for o in operands.iter().skip(1).flatten() {
                let shape = broadcast(&y.shape, &o.shape)?;
                let f = |a: S, b: S| match op.kind {
                    VariadicKind::Max => a.max(b),
                    VariadicKind::Min => a.min(b),
                    VariadicKind::Sum | VariadicKind::Mean => a.add(b),
                };
                let at = |i: &Vec<i64>| f(y.at(&pick(&y.shape, i)), o.at(&pick(&o.shape, i)));
                let data = indices(&shape).iter().map(at).collect();
                y = Array::real(shape, data);
            }
            if op.kind == VariadicKind::Mean {
                return Err("no mean of several here".into());
            }
            Ok(y)
        }
        Op::Range(_) => {
            let n = |i: usize| Ok::<i64, String>(need(operands, i)?.ints()[0]);
            let (start, limit, delta) = (n(0)?, n(1)?, n(2)?);
            let v: Vec<i64> =
                (0..).map(|i| start + i * delta).take_while(|v| (limit - v) * delta.signum() > 0).collect();
            Ok(Array { shape: vec![v.len() as i64], data: Elements::Int(v) })
        }
        Op::Where(_) => {
            let (a, b) = (need(operands, 1)?, need(operands, 2)?);
            let shape = broadcast(&broadcast(&x.shape, &a.shape)?, &b.shape)?;
            let chosen = |i: &Vec<i64>| x.ints()[offset(&x.shape, &pick(&x.shape, i)).unwrap_or(0)] != 0;
            let at = |i: &Vec<i64>| if chosen(i) { a.at(&pick(&a.shape, i)) } else { b.at(&pick(&b.shape, i)) };
            let data = indices(&shape).iter().map(at).collect();
            Ok(Array::real(shape, data))
        }
        Op::ScatterND(_) => {
            let (index, updates) = (need(operands, 1)?, need(operands, 2)?);
            let (lead, depth) = index.shape.split_at(index.shape.len() - 1);
            let depth = depth[0] as usize;
            let mut data = x.reals().to_vec();
            for at in indices(&updates.shape) {
                let (outer, inner) = at.split_at(lead.len());
                let row: Vec<i64> = (0..depth as i64)
                    .map(|d| {
                        let place: Vec<i64> = outer.iter().copied().chain([d]).collect();
                        let i = index.ints()[offset(&index.shape, &place).unwrap_or(0)];
                        if i < 0 { i + x.shape[d as usize] } else { i }
                    })
                    .collect();
                let to: Vec<i64> = row.iter().chain(inner).copied().collect();
                data[offset(&x.shape, &to).ok_or("an index beyond the end")?] = updates.at(&at);
            }
            Ok(Array::real(x.shape.clone(), data))
        }
        Op::MatMul(_) | Op::Einsum(_) => super::products::apply(op, operands),
        Op::Gemm(op) => gemm(op, operands),
        other => super::functions::apply(other, operands),
    }
}

/// `alpha a b + beta c`, a and b transposed where the attributes say so
fn gemm<S: Scalar>(op: &Gemm, operands: &Operands<'_, S>) -> Result<Array<S>, String> {
    let (a, b) = (need(operands, 0)?, need(operands, 1)?);
    let flip = |i: i64, j: i64, t: bool| if t { [j, i] } else { [i, j] };
    let [m, k] = if op.trans_a { [a.shape[1], a.shape[0]] } else { [a.shape[0], a.shape[1]] };
    let [inner, n] = if op.trans_b { [b.shape[1], b.shape[0]] } else { [b.shape[0], b.shape[1]] };
    if inner != k {
        return Err(format!("{:?} times {:?}", a.shape, b.shape));
    }
    let at = |i: &Vec<i64>| {
        (0..k)
            .fold(S::ZERO, |sum, k| sum.add(a.at(&flip(i[0], k, op.trans_a)).mul(b.at(&flip(k, i[1], op.trans_b)))))
            .mul(S::from_f64(f64::from(op.alpha)))
    };
    let product = Array::real(vec![m, n], indices(&[m, n]).iter().map(at).collect());
    match operands.get(2).copied().flatten() {
        None => Ok(product),
        Some(c) => {
            let beta = S::from_f64(f64::from(op.beta));
            let scaled = Array::real(c.shape.clone(), c.reals().iter().map(|v| v.mul(beta)).collect());
            let sum = binary(convc_runtime::ops::binary::BinaryKind::Add, &product, &scaled)?;
            if sum.shape == product.shape { Ok(sum) } else { Err("c widens the product".into()) }
        }
    }
}

/// The largest of those taps of each window that lie in the map.
fn max_pool<S: Scalar>(op: &MaxPool, x: &Array<S>) -> Result<Array<S>, String> {
    if op.auto_pad != AutoPad::NotSet || op.indices {
        return Err("automatic padding, or indices".into());
    }
    let n = op.kernel_shape.len();
    let mut shape = vec![x.shape[0], x.shape[1]];
    for a in 0..n {
        let (size, begin, end, stride) = (x.shape[a + 2], op.pads[a], op.pads[n + a], op.strides[a]);
        let extent = op.dilations[a] * (op.kernel_shape[a] - 1) + 1;
        let mut count = positions(size, begin, end, extent, stride)?;
        if op.ceil_mode && (size + begin + end - extent) % stride != 0 {
            count += 1;
        }
        // What begins behind the map and its leading padding is left out.
        while op.ceil_mode && count > 0 && (count - 1) * stride >= size + begin {
            count -= 1;
        }
        shape.push(count);
    }
    let taps = indices(&op.kernel_shape);
    let y = indices(&shape)
        .iter()
        .map(|at| {
            taps.iter()
                .filter_map(|t| {
                    let place = (0..n).map(|a| op.strides[a] * at[a + 2] + op.dilations[a] * t[a] - op.pads[a]);
                    let from: Vec<i64> = at[..2].iter().copied().chain(place).collect();
                    offset(&x.shape, &from).map(|at| x.reals()[at])
                })
                .fold(S::from_f64(f64::NEG_INFINITY), Scalar::max)
        })
        .collect();
    Ok(Array::real(shape, y))
}

/// Every input times every tap goes to output `s i + d t - begin`.
fn conv_transpose<S: Scalar>(
    op: &ConvTranspose,
    x: &Array<S>,
    w: &Array<S>,
    b: Option<&Array<S>>,
) -> Result<Array<S>, String> {
    if op.auto_pad != AutoPad::NotSet || !op.output_shape.is_empty() {
        return Err("automatic padding".into());
    }
    let n = x.shape.len() - 2;
    let (inputs, per, taps) = (w.shape[0], w.shape[1], &w.shape[2..]);
    if inputs != x.shape[1] || inputs % op.group != 0 {
        return Err(format!("{:?} on {:?}", w.shape, x.shape));
    }
    let mut shape = vec![x.shape[0], per * op.group];
    for (a, k) in taps.iter().enumerate() {
        let size = op.strides[a] * (x.shape[a + 2] - 1) + op.dilations[a] * (k - 1) + 1 + op.output_padding[a];
        shape.push(size - op.pads[a] - op.pads[n + a]);
    }
    if shape.iter().any(|&s| s < 0) {
        return Err("more is cut off than is there".into());
    }
    let bias = |o: i64| b.map_or(S::ZERO, |b| b.at(&[o]));
    let mut y: Vec<S> = indices(&shape).iter().map(|i| bias(i[1])).collect();
    for from in indices(&x.shape) {
        let group = from[1] / (inputs / op.group);
        for o in 0..per {
            for t in indices(taps) {
                let place = (0..n).map(|a| op.strides[a] * from[a + 2] + op.dilations[a] * t[a] - op.pads[a]);
                let to: Vec<i64> = [from[0], group * per + o].into_iter().chain(place).collect();
                let tap: Vec<i64> = [from[1], o].into_iter().chain(t.iter().copied()).collect();
                if let Some(at) = offset(&shape, &to) {
                    y[at] = y[at].add(x.at(&from).mul(w.at(&tap)));
                }
            }
        }
    }
    Ok(Array::real(shape, y))
}

/// Nearest and linear, one axis after the other: an output at coordinate c takes the elements around c, those beyond the border
/// being the ones at the border.
fn resize<S: Scalar>(op: &Resize, operands: &Operands<'_, S>) -> Result<Array<S>, String> {
    let x = need(operands, 0)?;
    let rank = x.shape.len();
    let axes: Vec<usize> = if op.axes.is_empty() {
        (0..rank).collect()
    } else {
        op.axes.iter().map(|a| ((a + rank as i64) % rank as i64) as usize).collect()
    };
    let mut y = x.clone();
    for (k, &axis) in axes.iter().enumerate() {
        let size = x.shape[axis] as f64;
        let (scale, width) = match (operands.get(2).copied().flatten(), operands.get(3).copied().flatten()) {
            (Some(s), _) if !s.reals().is_empty() => {
                let s = s.reals()[k].to_f64().ok_or("a scale is no number")?;
                (s, size * s)
            }
            (_, Some(n)) => (n.ints()[k] as f64 / size, n.ints()[k] as f64),
            _ => return Err("neither scales nor sizes".into()),
        };
        if scale == 1.0 {
            continue;
        }
        let coordinate = |o: f64| match op.coordinate_transformation_mode {
            CoordinateMode::PytorchHalfPixel if width < 2.0 => Some(0.0),
            CoordinateMode::HalfPixel | CoordinateMode::PytorchHalfPixel => Some((o + 0.5) * size / width - 0.5),
            CoordinateMode::TfHalfPixelForNn => Some((o + 0.5) * size / width),
            CoordinateMode::Asymmetric => Some(o * size / width),
            CoordinateMode::AlignCorners if width <= 1.0 => Some(0.0),
            CoordinateMode::AlignCorners if width > 1.0 => Some(o * (size - 1.0) / (width - 1.0)),
            _ => None,
        };
        let mut shape = y.shape.clone();
        shape[axis] = width.floor() as i64;
        let last = x.shape[axis] - 1;
        let data = indices(&shape)
            .iter()
            .map(|i| {
                let c = coordinate(i[axis] as f64)?;
                let at = |p: i64| {
                    let mut from = i.clone();
                    from[axis] = p.clamp(0, last);
                    y.at(&from)
                };
                match (op.mode, op.nearest_mode) {
                    (ResizeMode::Nearest, NearestMode::Floor) => Some(at(c.floor() as i64)),
                    (ResizeMode::Nearest, NearestMode::Ceil) => Some(at(c.ceil() as i64)),
                    (ResizeMode::Nearest, NearestMode::RoundPreferCeil) => Some(at((c + 0.5).floor() as i64)),
                    (ResizeMode::Nearest, NearestMode::RoundPreferFloor) => Some(at((c - 0.5).ceil() as i64)),
                    (ResizeMode::Linear, _) => {
                        let (low, part) = (c.floor(), c - c.floor());
                        let (a, b) = (at(low as i64), at(low as i64 + 1));
                        Some(a.mul(S::from_f64(1.0 - part)).add(b.mul(S::from_f64(part))))
                    }
                    _ => None,
                }
            })
            .collect::<Option<Vec<S>>>();
        y = Array::real(shape, data.ok_or("no formula of this mode")?);
    }
    Ok(y)
}
