//! Copying elements through strides: what every operator that only moves elements comes down to.

use crate::{Element, sys::Pool};

/// Results below this many elements are not shared out to threads.
const SERIAL: usize = 1 << 16;
/// Side of the squares in which a transposition is cut, in elements.
const BLOCK: usize = 16;

/// Row-major strides of `shape`.
#[must_use]
pub(crate) fn strides(shape: &[usize]) -> Vec<isize> {
    let mut strides = vec![0; shape.len()];
    let mut step = 1usize;
    for (s, &n) in strides.iter_mut().zip(shape).rev() {
        *s = step as isize;
        step = step.saturating_mul(n);
    }
    strides
}

/// One axis of a copy: its size and the steps in the destination and the source.
#[derive(Debug, Clone, Copy)]
struct Axis {
    n: usize,
    to: isize,
    from: isize,
}

/// The axes without those of size 1, neighbours merged where they step alike, so that runs get as long as they can.
fn merged(shape: &[usize], to: &[isize], from: &[isize]) -> Vec<Axis> {
    let mut axes: Vec<Axis> = Vec::with_capacity(shape.len());
    for ((&n, &to), &from) in shape.iter().zip(to).zip(from) {
        if n == 1 {
            continue;
        }
        match axes.last_mut() {
            Some(a) if a.to == to * n as isize && a.from == from * n as isize => *a = Axis { n: a.n * n, to, from },
            _ => axes.push(Axis { n, to, from }),
        }
    }
    axes
}

/// Puts the axis along which the source is contiguous next to the last one, where [`walk`] looks for it.
fn ordered(mut axes: Vec<Axis>) -> Vec<Axis> {
    if let Some(last) = axes.last().copied()
        && last.from != 1
        && last.from != 0
        && let Some(i) = axes.iter().position(|a| a.from == 1)
    {
        let a = axes.remove(i);
        axes.insert(axes.len() - 1, a);
    }
    axes
}

#[inline]
fn at(base: isize, i: usize, step: isize) -> usize {
    (base + i as isize * step) as usize
}

fn walk<T: Clone>(dst: &mut [T], src: &[T], d0: isize, s0: isize, axes: &[Axis]) {
    match axes {
        [] => dst[d0 as usize] = src[s0 as usize].clone(),
        [a] => run(dst, src, d0, s0, *a),
        [a, b] if a.from == 1 && b.from != 1 && b.to == 1 => {
            for i0 in (0..a.n).step_by(BLOCK) {
                let height = BLOCK.min(a.n - i0);
                for j0 in (0..b.n).step_by(BLOCK) {
                    let width = BLOCK.min(b.n - j0);
                    for i in i0..i0 + height {
                        let row = at(d0 + j0 as isize, i, a.to);
                        let s = s0 + i as isize + j0 as isize * b.from;
                        for (j, d) in dst[row..row + width].iter_mut().enumerate() {
                            d.clone_from(&src[at(s, j, b.from)]);
                        }
                    }
                }
            }
        }
        [a, b] => {
            for i in 0..a.n {
                run(dst, src, d0 + i as isize * a.to, s0 + i as isize * a.from, *b);
            }
        }
        [a, rest @ ..] => {
            for i in 0..a.n {
                walk(dst, src, d0 + i as isize * a.to, s0 + i as isize * a.from, rest);
            }
        }
    }
}

#[inline]
fn run<T: Clone>(dst: &mut [T], src: &[T], d0: isize, s0: isize, a: Axis) {
    let (d, s) = (d0 as usize, s0 as usize);
    match (a.to, a.from) {
        (1, 1) => dst[d..d + a.n].clone_from_slice(&src[s..s + a.n]),
        (1, 0) => dst[d..d + a.n].fill(src[s].clone()),
        _ => {
            for i in 0..a.n {
                dst[at(d0, i, a.to)].clone_from(&src[at(s0, i, a.from)]);
            }
        }
    }
}

/// Where the elements of a box lie in a slice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout<'a> {
    /// Position of the box's first element.
    pub offset: usize,
    /// Step along each axis.
    pub strides: &'a [isize],
}

/// Copies a box of `shape` from `src` to `dst`. Every position must lie within.
pub(crate) fn copy<T: Clone>(dst: &mut [T], to: Layout<'_>, src: &[T], from: Layout<'_>, shape: &[usize]) {
    if shape.contains(&0) {
        return;
    }
    let axes = ordered(merged(shape, to.strides, from.strides));
    walk(dst, src, to.offset as isize, from.offset as isize, &axes);
}

/// The row-major elements of a box of `shape` that lies in `src` as `from` says. Every position must lie within.
#[must_use]
pub(crate) fn view<T: Element>(src: &[T], from: Layout<'_>, shape: &[usize], pool: &Pool) -> Vec<T> {
    let count: usize = shape.iter().product();
    if count == 0 {
        return Vec::new();
    }
    let axes = merged(shape, &strides(shape), from.strides);
    let s0 = from.offset;
    if let [Axis { n, to: 1, from: 1 }] = axes[..] {
        return src[s0..s0 + n].to_vec();
    }
    let mut out = vec![T::default(); count];
    match axes.first().copied() {
        Some(first) if count >= SERIAL && pool.threads() > 1 => {
            let row = first.to as usize;
            let rows = first.n.div_ceil(4 * pool.threads());
            pool.for_each_chunk(&mut out, rows * row, &|i, piece| {
                let mut part = axes.clone();
                part[0].n = piece.len() / row;
                walk(piece, src, 0, s0 as isize + (i * rows) as isize * first.from, &ordered(part));
            });
        }
        _ => walk(&mut out, src, 0, s0 as isize, &ordered(axes)),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::movement::Random;

    #[test]
    fn views_agree_with_indexing() {
        let mut random = Random::new(1);
        for case in 0..300 {
            let shape = random.shape(5, 6);
            let source: Vec<usize> = shape.iter().map(|n| n + random.below(3)).collect();
            let full = strides(&source);
            // A random permutation of the source's axes, some reversed, some repeated.
            let order = random.permutation(shape.len());
            let mut steps = vec![0; shape.len()];
            let mut sizes = vec![0; shape.len()];
            let mut offset = 0;
            for (i, &o) in order.iter().enumerate() {
                sizes[i] = shape[o];
                steps[i] = full[o];
                match random.below(4) {
                    0 => {
                        steps[i] = -full[o];
                        offset += (sizes[i].max(1) as isize - 1) * full[o];
                    }
                    1 => steps[i] = 0,
                    _ => {}
                }
            }
            let src: Vec<i32> = (0..source.iter().product::<usize>() as i32).collect();
            let count: usize = sizes.iter().product();
            let expected: Vec<i32> = (0..count)
                .map(|k| {
                    let (mut rest, mut p) = (k, offset);
                    for i in (0..sizes.len()).rev() {
                        p += (rest % sizes[i]) as isize * steps[i];
                        rest /= sizes[i];
                    }
                    src[p as usize]
                })
                .collect();
            let from = Layout { offset: offset as usize, strides: &steps };
            for threads in [1, 3] {
                assert_eq!(view(&src, from, &sizes, &Pool::new(threads)), expected, "case {case}");
            }
            let mut dst = vec![-1; count];
            copy(&mut dst, Layout { offset: 0, strides: &strides(&sizes) }, &src, from, &sizes);
            assert_eq!(dst, expected, "case {case}");
        }
    }

    #[test]
    fn large_views_do_not_depend_on_threads() {
        let shape = [37, 50, 61];
        let src: Vec<f32> = (0..37 * 50 * 61).map(|i| i as f32).collect();
        let s = strides(&shape);
        for order in [[2, 0, 1], [1, 0, 2], [2, 1, 0], [0, 2, 1]] {
            let (sizes, steps) = (order.map(|o| shape[o]), order.map(|o| s[o]));
            let from = Layout { offset: 0, strides: &steps };
            let one = view(&src, from, &sizes, &Pool::new(1));
            assert_eq!(one, view(&src, from, &sizes, &Pool::new(4)), "{order:?}");
            let p = [3, 5, 7];
            let (to, fr) = (strides(&sizes), steps);
            let index = |s: &[isize]| (0..3).map(|k| p[k] * s[k]).sum::<isize>() as usize;
            assert_eq!(one[index(&to)], src[index(&fr)], "{order:?}");
        }
    }
}
