//! Sums of weighed channels: what a value is made of, channel by channel, however it is written.
//!
//! Every position of a value along the axes that stand for channels holds a sum of products: a channel of one map, weighed by one
//! number of a softmax or sigmoid, or not. Splits, views, transpositions, sums and products with broadcasting are carried out on
//! these sums, so that two spellings of one formula come out alike.

use convc_runtime::Dim;

/// More positions than this are not looked at.
const MOST_POSITIONS: usize = 1 << 16;

/// What an axis of a value stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Axis {
    /// Nothing: a size of 1.
    Unit,
    /// The batch.
    Batch,
    /// Spatial axes of the map, from the first to before the second, as one.
    Space(usize, usize),
    /// Channels, or a factor of their number.
    Channels(usize),
}

/// A channel of the map, weighed or not, and added or subtracted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Product {
    /// 1 or -1.
    pub(super) sign: i64,
    /// The channel; `None` for the number 1.
    pub(super) channel: Option<usize>,
    /// The number of the logit whose softmax or sigmoid weighs it.
    pub(super) weight: Option<usize>,
}

/// The number 1.
pub(super) const ONE: Product = Product { sign: 1, channel: None, weight: None };

/// A value as sums of products.
#[derive(Debug, Clone)]
pub(super) struct Sums {
    /// Its axes.
    pub(super) axes: Vec<Axis>,
    /// The sum at each position, row-major over the axes of channels.
    pub(super) at: Vec<Vec<Product>>,
    /// Whether channels stand for their means over all spatial axes.
    pub(super) pooled: bool,
}

impl Sums {
    pub(super) fn sizes(&self) -> Vec<usize> {
        sizes(&self.axes)
    }

    /// The value at `axes` whose position `p` holds what `f` says.
    pub(super) fn make(
        axes: Vec<Axis>,
        pooled: bool,
        mut f: impl FnMut(&[usize]) -> Option<Vec<Product>>,
    ) -> Option<Sums> {
        let sizes = sizes(&axes);
        let count: usize = sizes.iter().try_fold(1usize, |n, &s| n.checked_mul(s)).filter(|&n| n <= MOST_POSITIONS)?;
        let mut at = Vec::with_capacity(count);
        let mut position = vec![0; sizes.len()];
        for _ in 0..count {
            at.push(f(&position)?);
            for (p, &size) in position.iter_mut().zip(&sizes).rev() {
                *p += 1;
                if *p < size {
                    break;
                }
                *p = 0;
            }
        }
        Some(Sums { axes, at, pooled })
    }

    pub(super) fn get(&self, position: &[usize]) -> Option<&Vec<Product>> {
        let index = position.iter().zip(self.sizes()).fold(0, |i, (p, size)| i * size + p.min(&(size - 1)));
        self.at.get(index)
    }

    /// Whether no axis but the batch and the channels is left.
    pub(super) fn is_flat(&self) -> bool {
        !self.axes.iter().any(|a| matches!(a, Axis::Space(..)))
    }

    /// Whether it is laid out as a map of its own is: the batch, the channels, then space in order.
    pub(super) fn in_order(&self) -> bool {
        let channels = self.axes.iter().filter(|a| matches!(a, Axis::Channels(_))).count();
        let mut next = 0;
        self.axes.iter().enumerate().all(|(i, a)| match a {
            Axis::Unit => true,
            Axis::Batch => i == 0,
            Axis::Channels(_) => i == 1 && channels == 1,
            Axis::Space(from, to) => {
                let ordered = i >= 2 && *from >= next && *to == from + 1;
                next = *to;
                ordered
            }
        })
    }

    /// Whether position p holds just channel p.
    pub(super) fn is_identity(&self) -> bool {
        self.in_order() && self.at.iter().enumerate().all(|(i, s)| **s == [Product { channel: Some(i), ..ONE }])
    }
}

fn sizes(axes: &[Axis]) -> Vec<usize> {
    axes.iter().map(|a| if let Axis::Channels(n) = a { *n } else { 1 }).collect()
}

pub(super) fn signed(sum: Vec<Product>, sign: i64) -> Vec<Product> {
    sum.into_iter().map(|p| Product { sign: p.sign * sign, ..p }).collect()
}

pub(super) fn without(axes: &[Axis], gone: &[usize]) -> Vec<Axis> {
    axes.iter().enumerate().filter(|(i, _)| !gone.contains(i)).map(|(_, a)| *a).collect()
}

/// The means over all spatial axes.
pub(super) fn mean(x: &Sums, over: &[usize], keep: bool) -> Option<Sums> {
    let whole = x.axes.iter().enumerate().all(|(i, a)| match a {
        Axis::Space(..) => over.contains(&i),
        Axis::Unit => true,
        Axis::Batch | Axis::Channels(_) => !over.contains(&i),
    });
    if !whole || x.pooled || x.at.iter().flatten().any(|p| p.weight.is_some()) {
        return None;
    }
    let mut axes = x.axes.clone();
    over.iter().for_each(|&a| axes[a] = Axis::Unit);
    let axes = if keep { axes } else { without(&axes, over) };
    Some(Sums { axes, at: x.at.clone(), pooled: true })
}

pub(super) fn broadcast(
    a: &Sums,
    b: &Sums,
    f: impl Fn(&[Product], &[Product]) -> Option<Vec<Product>>,
) -> Option<Sums> {
    let rank = a.axes.len().max(b.axes.len());
    let widened = |s: &Sums| [vec![Axis::Unit; rank - s.axes.len()], s.axes.clone()].concat();
    let (left, right) = (widened(a), widened(b));
    let axes = left.iter().zip(&right).map(|(x, y)| match (x, y) {
        (x, y) if x == y => Some(*x),
        (Axis::Unit, other) | (other, Axis::Unit) => Some(*other),
        _ => None,
    });
    let axes = axes.collect::<Option<Vec<Axis>>>()?;
    let number = |s: &Sums| s.at.iter().flatten().all(|p| p.channel.is_none());
    if a.pooled != b.pooled && !number(a) && !number(b) {
        return None;
    }
    let at = |s: &Sums, p: &[usize]| s.get(&p[rank - s.axes.len()..]).cloned();
    Sums::make(axes, a.pooled || b.pooled, |p| f(&at(a, p)?, &at(b, p)?).filter(|s| s.len() <= 64))
}

pub(super) fn product(a: &Sums, b: &Sums) -> Option<Sums> {
    broadcast(a, b, |a, b| {
        let mut out = Vec::new();
        for (x, y) in a.iter().flat_map(|x| b.iter().map(move |y| (x, y))) {
            if (x.channel.is_some() && y.channel.is_some()) || (x.weight.is_some() && y.weight.is_some()) {
                return None;
            }
            out.push(Product {
                sign: x.sign * y.sign,
                channel: x.channel.or(y.channel),
                weight: x.weight.or(y.weight),
            });
        }
        Some(out)
    })
}

/// The axes of a view to the shape `to`: factors of channels may be regrouped and spatial axes joined, nothing else.
pub(super) fn regrouped(axes: &[Axis], from: &[Dim], to: &[Dim]) -> Option<Vec<Axis>> {
    let old: Vec<(Axis, &Dim)> = axes.iter().copied().zip(from).filter(|(a, _)| *a != Axis::Unit).collect();
    let mut out = Vec::with_capacity(to.len());
    let mut i = 0;
    let mut left = 1;
    for d in to {
        if d.as_fixed() == Some(1) {
            out.push(Axis::Unit);
            continue;
        }
        if left == 1 {
            match old.get(i)? {
                (Axis::Batch, batch) => {
                    (batch.equals(d) == Some(true)).then_some(())?;
                    out.push(Axis::Batch);
                    i += 1;
                    continue;
                }
                (Axis::Space(begin, _), _) => {
                    let run = old[i..].iter().take_while(|(a, _)| matches!(a, Axis::Space(..))).count();
                    let joined = (1..=run)
                        .find(|n| Dim::product(old[i..i + n].iter().map(|(_, d)| *d)).equals(d) == Some(true))?;
                    let Axis::Space(_, end) = old[i + joined - 1].0 else { return None };
                    out.push(Axis::Space(*begin, end));
                    i += joined;
                    continue;
                }
                (Axis::Channels(_), _) => {
                    let run = old[i..].iter().take_while(|(a, _)| matches!(a, Axis::Channels(_))).count();
                    left = sizes(&old[i..i + run].iter().map(|(a, _)| *a).collect::<Vec<_>>()).iter().product();
                    i += run;
                }
                (Axis::Unit, _) => return None,
            }
        }
        let size = usize::try_from(d.as_fixed()?).ok().filter(|&n| n > 1 && left % n == 0)?;
        out.push(Axis::Channels(size));
        left /= size;
    }
    (left == 1 && i == old.len()).then_some(out)
}
