//! The formulas of clamping, of picked channels and of blocks of the map as channels.

use convc_runtime::{Op, ops::depth_space::DepthMode, scalar::Scalar};

use super::{
    Array, offset,
    ops::{Operands, need},
};

/// One operator of this file.
pub(super) fn apply<S: Scalar>(op: &Op, operands: &Operands<'_, S>) -> Result<Array<S>, String> {
    let x = need(operands, 0)?;
    match op {
        Op::Clip(_) => {
            let bound = |i: usize| operands.get(i).copied().flatten().map(|b| b.reals()[0]);
            let (low, high) = (bound(1), bound(2));
            let clip = |v: S| {
                let v = low.map_or(v, |l| v.max(l));
                high.map_or(v, |h| v.min(h))
            };
            Ok(Array::real(x.shape.clone(), x.reals().iter().map(|v| clip(*v)).collect()))
        }
        Op::Gather(op) => {
            let indices = need(operands, 1)?;
            let rank = x.shape.len() as i64;
            let axis = if op.axis < 0 { op.axis + rank } else { op.axis } as usize;
            let wide = indices.shape.len();
            // The axis is replaced by those of the indices.
            let shape = [&x.shape[..axis], &indices.shape, &x.shape[axis + 1..]].concat();
            if indices.ints().iter().any(|at| !(-x.shape[axis]..x.shape[axis]).contains(at)) {
                return Err(format!("an index beyond {}", x.shape[axis]));
            }
            Ok(x.gather(shape, |i| {
                let place = offset(&indices.shape, &i[axis..axis + wide]).unwrap_or_default();
                let at: i64 = indices.ints()[place];
                let at = if at < 0 { at + x.shape[axis] } else { at };
                [&i[..axis], &[at], &i[axis + wide..]].concat()
            }))
        }
        Op::SpaceToDepth(op) => {
            let b = op.blocksize;
            let [n, c, h, w] = x.shape[..] else { return Err("4 axes are needed".into()) };
            if h % b != 0 || w % b != 0 {
                return Err(format!("blocks of {b} in {h} x {w}"));
            }
            Ok(x.gather(vec![n, c * b * b, h / b, w / b], |i| {
                let (row, column, channel) = match op.mode {
                    DepthMode::Dcr => (i[1] / c / b, i[1] / c % b, i[1] % c),
                    DepthMode::Crd => (i[1] / b % b, i[1] % b, i[1] / (b * b)),
                };
                vec![i[0], channel, i[2] * b + row, i[3] * b + column]
            }))
        }
        other => Err(format!("the oracle has no {}", other.name())),
    }
}
