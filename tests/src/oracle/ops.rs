//! The operators' formulas.

use convc_runtime::{
    Op,
    ops::{AveragePool, Conv, binary::BinaryKind, pad::PadMode},
    scalar::Scalar,
    window::AutoPad,
};

use super::{Array, Elements, gates, indices, offset, systems};

pub(super) type Operands<'a, S> = [Option<&'a Array<S>>];

pub(super) fn need<'a, S>(operands: &Operands<'a, S>, i: usize) -> Result<&'a Array<S>, String> {
    operands.get(i).copied().flatten().ok_or_else(|| format!("operand {i} is missing"))
}

/// Whether an operator is computed here on floating-point numbers alone: ONNX defines most of these on nothing else.
fn is_of_numbers(op: &Op) -> bool {
    match op {
        Op::Conv(_)
        | Op::ConvTranspose(_)
        | Op::DOConv(_)
        | Op::MixedConv(_)
        | Op::GhostModule(_)
        | Op::SCConv(_)
        | Op::SplitAttention(_)
        | Op::Involution(_)
        | Op::AveragePool(_)
        | Op::LpPool(_)
        | Op::GlobalPool(_)
        | Op::BatchNormalization(_)
        | Op::InstanceNormalization(_)
        | Op::LayerNormalization(_)
        | Op::Softmax(_)
        | Op::Reduce(_)
        | Op::MatMul(_)
        | Op::Gemm(_)
        | Op::Einsum(_)
        | Op::Resize(_)
        | Op::Gelu(_) => true,
        Op::Unary(_) => !["Relu", "Abs", "Neg", "Sign"].contains(&op.name()),
        _ => false,
    }
}

/// One operator; `integers` says that the result is one of integers.
pub(super) fn apply<S: Scalar>(op: &Op, operands: &Operands<'_, S>, integers: bool) -> Result<Array<S>, String> {
    let x = need(operands, 0)?;
    if matches!(x.data, Elements::Int(_)) && is_of_numbers(op) {
        return Err("integers, on which the oracle has no such operator".into());
    }
    if integers && matches!(op, Op::Clip(_) | Op::Pad(_) | Op::MaxPool(_) | Op::Variadic(_)) {
        return as_numbers(op, operands);
    }
    match op {
        Op::Conv(op) => conv(op, x, need(operands, 1)?, operands.get(2).copied().flatten()),
        Op::DOConv(op) => {
            systems::do_conv(op, x, need(operands, 1)?, need(operands, 2)?, operands.get(3).copied().flatten())
        }
        Op::Involution(op) => systems::involution(op, x, need(operands, 1)?),
        Op::GhostModule(op) => gates::ghost_module(op, operands),
        Op::SCConv(op) => gates::sc_conv(op, operands),
        Op::SplitAttention(op) => gates::split_attention(op, operands),
        Op::MixedConv(op) => systems::mixed_conv(op, operands),
        Op::AveragePool(op) => average_pool(op, x),
        Op::BatchNormalization(op) => batch_norm(f64::from(op.epsilon), operands),
        Op::Binary(op) => binary(op.kind, x, need(operands, 1)?),
        Op::Unary(_) if op.name() == "Relu" => Ok(match &x.data {
            Elements::Real(v) => Array::real(x.shape.clone(), v.iter().map(|v| v.max(S::ZERO)).collect()),
            Elements::Int(v) => {
                Array { shape: x.shape.clone(), data: Elements::Int(v.iter().map(|v| (*v).max(0)).collect()) }
            }
        }),
        Op::Identity(_) => Ok(x.clone()),
        Op::Cast(_) => match (&x.data, integers) {
            (Elements::Real(_), false) | (Elements::Int(_), true) => Ok(x.clone()),
            (Elements::Int(v), false) => {
                Ok(Array::real(x.shape.clone(), v.iter().map(|&v| S::from_f64(v as f64)).collect()))
            }
            (Elements::Real(_), true) => Err("numbers are not rounded to integers here".into()),
        },
        Op::Pad(op) => pad(op.mode, operands),
        Op::Transpose(op) => {
            let rank = x.shape.len();
            let perm: Vec<usize> = if op.perm.is_empty() {
                (0..rank).rev().collect()
            } else {
                op.perm.iter().map(|&p| p as usize).collect()
            };
            let shape = perm.iter().map(|&p| x.shape[p]).collect();
            Ok(x.gather(shape, |i| {
                let mut from = vec![0; rank];
                perm.iter().zip(i).for_each(|(&p, &i)| from[p] = i);
                from
            }))
        }
        Op::Concat(op) => concat(op.axis, operands),
        Op::Clip(_) | Op::SpaceToDepth(_) | Op::Gather(_) => super::channels::apply(op, operands),
        Op::Slice(_) => slice(operands),
        Op::Shape(op) => {
            let rank = x.shape.len() as i64;
            let place = |p: i64| (if p < 0 { p + rank } else { p }).clamp(0, rank);
            let (start, end) = (place(op.start), place(op.end.unwrap_or(rank)));
            let sizes = x.shape[start as usize..end.max(start) as usize].to_vec();
            Ok(Array { shape: vec![sizes.len() as i64], data: Elements::Int(sizes) })
        }
        Op::ConstantOfShape(op) => {
            let shape = x.ints().to_vec();
            let count = shape.iter().product::<i64>() as usize;
            let whole = op.value.to_i64s().and_then(|v| v.first().copied());
            let real = op.value.to_f64s().and_then(|v| v.first().copied());
            match (whole, real) {
                (Some(v), _) => Ok(Array { shape, data: Elements::Int(vec![v; count]) }),
                (None, Some(v)) => Ok(Array::real(shape, vec![S::from_f64(v); count])),
                _ => Err("a fill of neither integers nor numbers".into()),
            }
        }
        Op::Reshape(op) => {
            let asked = need(operands, 1)?.ints();
            let mut shape: Vec<i64> =
                asked.iter().enumerate().map(|(i, &n)| if n == 0 && !op.allowzero { x.shape[i] } else { n }).collect();
            if let Some(free) = shape.iter().position(|&n| n == -1) {
                let rest: i64 = shape.iter().filter(|&&n| n != -1).product();
                if rest == 0 {
                    return Err("-1 beside a size of 0 is undecided".into());
                }
                shape[free] = x.shape.iter().product::<i64>() / rest;
            }
            relabel(x, shape)
        }
        Op::Flatten(op) => {
            let rank = x.shape.len() as i64;
            let axis = if op.axis < 0 { op.axis + rank } else { op.axis } as usize;
            relabel(x, vec![x.shape[..axis].iter().product(), x.shape[axis..].iter().product()])
        }
        Op::Squeeze(_) => {
            let rank = x.shape.len() as i64;
            let keep: Vec<i64> = match operands.get(1).copied().flatten() {
                None => x.shape.iter().copied().filter(|&n| n != 1).collect(),
                Some(axes) => {
                    let axes: Vec<i64> = axes.ints().iter().map(|a| (a + rank) % rank).collect();
                    (0..rank).filter(|a| !axes.contains(a)).map(|a| x.shape[a as usize]).collect()
                }
            };
            relabel(x, keep)
        }
        Op::Unsqueeze(_) => {
            let axes = need(operands, 1)?.ints();
            let rank = x.shape.len() as i64 + axes.len() as i64;
            let axes: Vec<i64> = axes.iter().map(|a| (a + rank) % rank).collect();
            let mut rest = x.shape.iter().copied();
            let shape = (0..rank).map(|a| if axes.contains(&a) { 1 } else { rest.next().unwrap_or(1) }).collect();
            relabel(x, shape)
        }
        Op::Expand(_) => {
            let shape = broadcast(&x.shape, need(operands, 1)?.ints())?;
            Ok(x.gather(shape, |i| pick(&x.shape, i)))
        }
        other => super::maps::apply(other, operands),
    }
}

/// An operator that only chooses among integers: of numbers that hold them exactly.
fn as_numbers<S: Scalar>(op: &Op, operands: &Operands<'_, S>) -> Result<Array<S>, String> {
    // Of a Pad the second operand and the last one say where.
    let is_data = |i: usize| !matches!(op, Op::Pad(_)) || i == 0 || i == 2;
    let mut held = Vec::new();
    for (i, o) in operands.iter().enumerate() {
        held.push(match o {
            Some(Array { shape, data: Elements::Int(v) }) if is_data(i) => {
                if v.iter().any(|v| v.unsigned_abs() > 1 << 53) {
                    return Err("an integer that no f64 holds".into());
                }
                Some(Array::real(shape.clone(), v.iter().map(|v| *v as f64).collect()))
            }
            Some(Array { shape, data: Elements::Int(v) }) => {
                Some(Array { shape: shape.clone(), data: Elements::Int(v.clone()) })
            }
            Some(_) => return Err("numbers and integers do not mix".into()),
            None => None,
        });
    }
    let refs: Vec<Option<&Array<f64>>> = held.iter().map(Option::as_ref).collect();
    let y = apply(op, &refs, false)?;
    if y.reals().iter().any(|v| !v.is_finite()) {
        return Err("a window without elements, which integers have no number for".into());
    }
    let whole = y.reals().iter().map(|v| *v as i64).collect();
    Ok(Array { shape: y.shape, data: Elements::Int(whole) })
}

fn relabel<S: Scalar>(x: &Array<S>, shape: Vec<i64>) -> Result<Array<S>, String> {
    if shape.iter().product::<i64>() != x.shape.iter().product::<i64>() {
        return Err(format!("{:?} does not become {shape:?}", x.shape));
    }
    Ok(Array { shape, data: x.data.clone() })
}

/// The shape of the whole by the multidirectional broadcasting of ONNX.
pub(super) fn broadcast(a: &[i64], b: &[i64]) -> Result<Vec<i64>, String> {
    let rank = a.len().max(b.len());
    (0..rank)
        .map(|i| {
            let size = |s: &[i64]| (i + s.len()).checked_sub(rank).map_or(1, |j| s[j]);
            match (size(a), size(b)) {
                (x, y) if x == y => Ok(x),
                (1, y) => Ok(y),
                (x, 1) => Ok(x),
                _ => Err(format!("{a:?} and {b:?} do not broadcast")),
            }
        })
        .collect()
}

/// The index into an operand of this shape for an index into the broadcast whole.
pub(super) fn pick(shape: &[i64], index: &[i64]) -> Vec<i64> {
    let skip = index.len() - shape.len();
    shape.iter().zip(&index[skip..]).map(|(&n, &i)| if n == 1 { 0 } else { i }).collect()
}

pub(super) fn binary<S: Scalar>(kind: BinaryKind, a: &Array<S>, b: &Array<S>) -> Result<Array<S>, String> {
    let shape = broadcast(&a.shape, &b.shape)?;
    let (wide_a, wide_b) =
        (a.gather(shape.clone(), |i| pick(&a.shape, i)), b.gather(shape.clone(), |i| pick(&b.shape, i)));
    let data = match (&wide_a.data, &wide_b.data) {
        (Elements::Real(a), Elements::Real(b)) => {
            let f = |x: S, y: S| {
                Some(match kind {
                    BinaryKind::Add => x.add(y),
                    BinaryKind::Sub => x.sub(y),
                    BinaryKind::Mul => x.mul(y),
                    BinaryKind::Div => x.div(y),
                    _ => return None,
                })
            };
            Elements::Real(a.iter().zip(b).map(|(&x, &y)| f(x, y)).collect::<Option<_>>().ok_or("no such formula")?)
        }
        (Elements::Int(a), Elements::Int(b)) => {
            let f = |x: i64, y: i64| match kind {
                BinaryKind::Add => Some(x.wrapping_add(y)),
                BinaryKind::Sub => Some(x.wrapping_sub(y)),
                BinaryKind::Mul => Some(x.wrapping_mul(y)),
                BinaryKind::Div => x.checked_div(y),
                _ => None,
            };
            Elements::Int(a.iter().zip(b).map(|(&x, &y)| f(x, y)).collect::<Option<_>>().ok_or("no such formula")?)
        }
        _ => return Err("numbers and integers do not mix".into()),
    };
    Ok(Array { shape, data })
}

/// `y[n, c, ..] = (x[n, c, ..] - m[c]) / sqrt(v[c] + e) * g[c] + b[c]`
fn batch_norm<S: Scalar>(epsilon: f64, operands: &Operands<'_, S>) -> Result<Array<S>, String> {
    let x = need(operands, 0)?;
    let parameter = |i| need(operands, i).map(Array::reals);
    let (g, b, m, v) = (parameter(1)?, parameter(2)?, parameter(3)?, parameter(4)?);
    let y = indices(&x.shape)
        .iter()
        .map(|i| {
            let c = i[1] as usize;
            let deviation = v[c].add(S::from_f64(epsilon)).apply("Sqrt", f64::sqrt);
            x.at(i).sub(m[c]).div(deviation).mul(g[c]).add(b[c])
        })
        .collect();
    Ok(Array::real(x.shape.clone(), y))
}

/// Number of positions of a window that lies wholly in the padded axis.
pub(super) fn positions(size: i64, begin: i64, end: i64, extent: i64, stride: i64) -> Result<i64, String> {
    let room = size + begin + end - extent;
    if room < 0 { Err(format!("a window of {extent} in {size} + {begin} + {end}")) } else { Ok(room / stride + 1) }
}

/// `y[n, o, p] = b[o] + sum over i, t of w[o, i, t] * x[n, group(o) + i, s p + d t - begin]`, x being 0 outside
pub(super) fn conv<S: Scalar>(op: &Conv, x: &Array<S>, w: &Array<S>, b: Option<&Array<S>>) -> Result<Array<S>, String> {
    if op.auto_pad != AutoPad::NotSet {
        return Err("automatic padding".into());
    }
    let n = x.shape.len() - 2;
    let (outputs, inputs, taps) = (w.shape[0], w.shape[1], &w.shape[2..]);
    if inputs * op.group != x.shape[1] || outputs % op.group != 0 {
        return Err(format!("{:?} on {:?} in {} groups", w.shape, x.shape, op.group));
    }
    let mut shape = vec![x.shape[0], outputs];
    for (a, k) in taps.iter().enumerate() {
        let extent = op.dilations[a] * (k - 1) + 1;
        shape.push(positions(x.shape[a + 2], op.pads[a], op.pads[n + a], extent, op.strides[a])?);
    }
    let all_taps = indices(taps);
    let y = indices(&shape)
        .iter()
        .map(|at| {
            let o = at[1];
            let first = o / (outputs / op.group) * inputs;
            let mut sum = b.map_or(S::ZERO, |b| b.at(&[o]));
            for i in 0..inputs {
                for t in &all_taps {
                    let mut from = vec![at[0], first + i];
                    let mut tap = vec![o, i];
                    for a in 0..n {
                        from.push(op.strides[a] * at[a + 2] + op.dilations[a] * t[a] - op.pads[a]);
                        tap.push(t[a]);
                    }
                    if offset(&x.shape, &from).is_some() {
                        sum = sum.add(w.at(&tap).mul(x.at(&from)));
                    }
                }
            }
            sum
        })
        .collect();
    Ok(Array::real(shape, y))
}

/// The mean over those taps of each window that lie in the map, or in its declared padding if that counts.
fn average_pool<S: Scalar>(op: &AveragePool, x: &Array<S>) -> Result<Array<S>, String> {
    if op.auto_pad != AutoPad::NotSet {
        return Err("automatic padding".into());
    }
    let n = op.kernel_shape.len();
    let mut shape = vec![x.shape[0], x.shape[1]];
    for a in 0..n {
        let (size, begin, end, stride) = (x.shape[a + 2], op.pads[a], op.pads[n + a], op.strides[a]);
        let extent = op.dilations[a] * (op.kernel_shape[a] - 1) + 1;
        let mut count = positions(size, begin, end, extent, stride)?;
        // With ceil_mode one more window may hang over, if it begins inside the map or its leading padding.
        let hangs = (size + begin + end - extent) % stride != 0;
        if op.ceil_mode && hangs {
            count += 1;
        }
        while op.ceil_mode && count > 0 && (count - 1) * stride >= size + begin {
            count -= 1;
        }
        shape.push(count);
    }
    let taps = indices(&op.kernel_shape);
    let y = indices(&shape)
        .iter()
        .map(|at| {
            let (mut sum, mut count) = (S::ZERO, 0);
            for t in &taps {
                let place: Vec<i64> =
                    (0..n).map(|a| op.strides[a] * at[a + 2] + op.dilations[a] * t[a] - op.pads[a]).collect();
                let in_map = (0..n).all(|a| (0..x.shape[a + 2]).contains(&place[a]));
                let padded = |a: usize| -op.pads[a]..x.shape[a + 2] + op.pads[n + a];
                let counts = in_map || (op.count_include_pad && (0..n).all(|a| padded(a).contains(&place[a])));
                if in_map {
                    let from: Vec<i64> = at[..2].iter().chain(&place).copied().collect();
                    sum = sum.add(x.at(&from));
                }
                count += i32::from(counts);
            }
            if count == 0 { S::ZERO } else { sum.div(S::from_f64(f64::from(count))) }
        })
        .collect();
    Ok(Array::real(shape, y))
}

fn pad<S: Scalar>(mode: PadMode, operands: &Operands<'_, S>) -> Result<Array<S>, String> {
    let x = need(operands, 0)?;
    let pads = need(operands, 1)?.ints();
    let value = match operands.get(2).copied().flatten() {
        None => S::ZERO,
        Some(v) => v.reals()[0],
    };
    let rank = x.shape.len() as i64;
    let axes: Vec<i64> = match operands.get(3).copied().flatten() {
        None => (0..rank).collect(),
        Some(a) => a.ints().iter().map(|a| (a + rank) % rank).collect(),
    };
    let mut begin = vec![0; x.shape.len()];
    let mut shape = x.shape.clone();
    for (i, &axis) in axes.iter().enumerate() {
        let (before, after) = (pads[i], pads[i + axes.len()]);
        begin[axis as usize] = before;
        shape[axis as usize] += before + after;
    }
    if shape.iter().any(|&n| n < 0) {
        return Err("more is cropped than is there".into());
    }
    if mode != PadMode::Constant && pads.iter().any(|&p| p < 0) {
        return Err("whether it crops before or after it repeats is not said".into());
    }
    let y = indices(&shape)
        .iter()
        .map(|i| {
            let from: Option<Vec<i64>> = i
                .iter()
                .zip(&begin)
                .zip(&x.shape)
                .map(|((i, b), &n)| {
                    let p = i - b;
                    match mode {
                        PadMode::Constant => Some(p),
                        _ if n == 0 => None,
                        PadMode::Edge => Some(p.clamp(0, n - 1)),
                        PadMode::Wrap => Some(p.rem_euclid(n)),
                        PadMode::Reflect if n == 1 => Some(0),
                        PadMode::Reflect => {
                            let q = p.rem_euclid(2 * (n - 1));
                            Some(q.min(2 * (n - 1) - q))
                        }
                    }
                })
                .collect();
            from.map(|from| offset(&x.shape, &from).map_or(value, |at| x.reals()[at]))
        })
        .collect::<Option<Vec<S>>>()
        .ok_or("nothing to repeat")?;
    Ok(Array::real(shape, y))
}

fn concat<S: Scalar>(axis: i64, operands: &Operands<'_, S>) -> Result<Array<S>, String> {
    let parts: Vec<&Array<S>> = operands.iter().flatten().copied().collect();
    let rank = parts[0].shape.len() as i64;
    let axis = ((axis + rank) % rank) as usize;
    let others =
        |p: &Array<S>| p.shape.iter().enumerate().filter(|(a, _)| *a != axis).map(|(_, n)| *n).collect::<Vec<_>>();
    if let Some(p) = parts.iter().find(|p| others(p) != others(parts[0])) {
        return Err(format!("{:?} and {:?} do not fit side by side", parts[0].shape, p.shape));
    }
    let mut shape = parts[0].shape.clone();
    shape[axis] = parts.iter().map(|p| p.shape[axis]).sum();
    // Which part, and where in it.
    let from: Vec<(usize, usize)> = indices(&shape)
        .into_iter()
        .filter_map(|mut i| {
            let mut k = 0;
            while i[axis] >= parts[k].shape[axis] {
                i[axis] -= parts[k].shape[axis];
                k += 1;
            }
            Some((k, offset(&parts[k].shape, &i)?))
        })
        .collect();
    let data = match &parts[0].data {
        Elements::Real(_) => Elements::Real(from.iter().map(|&(k, i)| parts[k].reals()[i]).collect()),
        Elements::Int(_) => Elements::Int(from.iter().map(|&(k, i)| parts[k].ints()[i]).collect()),
    };
    Ok(Array { shape, data })
}

fn slice<S: Scalar>(operands: &Operands<'_, S>) -> Result<Array<S>, String> {
    let x = need(operands, 0)?;
    let (starts, ends) = (need(operands, 1)?.ints(), need(operands, 2)?.ints());
    let rank = x.shape.len() as i64;
    let axes: Vec<i64> = match operands.get(3).copied().flatten() {
        None => (0..starts.len() as i64).collect(),
        Some(a) => a.ints().iter().map(|a| (a + rank) % rank).collect(),
    };
    let steps: Vec<i64> = match operands.get(4).copied().flatten() {
        None => vec![1; starts.len()],
        Some(s) => s.ints().to_vec(),
    };
    let mut taken: Vec<Vec<i64>> = x.shape.iter().map(|&n| (0..n).collect()).collect();
    for (k, &axis) in axes.iter().enumerate() {
        let n = x.shape[axis as usize];
        let from_end = |p: i64| if p < 0 { p + n } else { p };
        let (start, end, step) = (from_end(starts[k]), from_end(ends[k]), steps[k]);
        // Positions from `start` in steps up to but without `end`, those outside the axis left out at either end.
        let (start, end) = if step > 0 {
            (start.clamp(0, n), end.clamp(0, n))
        } else {
            (start.clamp(-1, n - 1), end.clamp(-1, n - 1))
        };
        let mut at = Vec::new();
        let mut p = start;
        while (step > 0 && p < end) || (step < 0 && p > end) {
            at.push(p);
            p += step;
        }
        taken[axis as usize] = at;
    }
    let shape = taken.iter().map(|t| t.len() as i64).collect();
    Ok(x.gather(shape, |i| i.iter().zip(&taken).map(|(&i, t)| t[i as usize]).collect()))
}
