//! The weighed sum: which channels it adds up, and by which logits it weighs them.

use std::collections::BTreeSet;

use super::{
    reader::{Gate, Weights},
    sums::{Product, Sums},
};
use crate::rewrite::rule::Verdict;

/// Which logit weighs part r of channel c: at `r * channels + c`.
pub(super) enum Logits {
    /// By a softmax over the parts.
    Each(Vec<usize>),
    /// By one of two sigmoids.
    Pair(Vec<usize>),
    /// By a sigmoid, the other part by what is left to 1.
    Rest { part: usize, of: Vec<usize> },
}

/// The weighed sum at the root.
pub(super) struct Weighed {
    pub(super) radix: usize,
    pub(super) channels: usize,
    pub(super) logits: Logits,
    /// Part r of channel c: at `r * channels + c`.
    pub(super) channels_of: Vec<usize>,
}

impl Weighed {
    pub(super) fn read(root: &Sums, weights: &Weights, source: usize) -> Option<Weighed> {
        let channels = root.at.len();
        if channels == 0 || !source.is_multiple_of(channels) || !root.in_order() {
            return None;
        }
        let radix = source / channels;
        // One part weighed by a sigmoid is a gate.
        if radix == 1 {
            return None;
        }
        let mut channels_of = vec![0; source];
        let mut logits = vec![0; source];
        let mut part = None;
        for (c, sum) in root.at.iter().enumerate() {
            let mut sum = sum.clone();
            sum.sort_by_key(|p| (p.channel, p.weight, p.sign));
            let weighed = |p: &Product| (p.sign == 1).then_some((p.channel?, p.weight?));
            let plain = sum.iter().map(weighed).collect::<Option<Vec<_>>>();
            match (plain, sum.as_slice()) {
                (Some(pairs), _) if pairs.len() == radix && part.is_none() => {
                    for (r, (channel, logit)) in pairs.into_iter().enumerate() {
                        channels_of[r * channels + c] = channel;
                        logits[r * channels + c] = logit;
                    }
                }
                (None, [_, _, _]) if radix == 2 && (c == 0 || part.is_some()) => {
                    let (r, channel, logit) = rest(&sum)?;
                    (channels_of[c], channels_of[channels + c]) = channel;
                    if *part.get_or_insert(r) != r {
                        return None;
                    }
                    logits[c] = logit;
                }
                _ => return None,
            }
        }
        let logits = match (part, &weights.gate) {
            (Some(part), Gate::Sigmoid) => Logits::Rest { part, of: logits[..channels].to_vec() },
            (None, Gate::Softmax(_)) => Logits::Each(logits),
            (None, Gate::Sigmoid) if radix == 2 => Logits::Pair(logits),
            _ => return None,
        };
        Some(Weighed { radix, channels, logits, channels_of })
    }
}

/// Reads `u + s * v - s * u`: which of the channels in order is v, the channels, and the logit of s.
fn rest(sum: &[Product]) -> Option<(usize, (usize, usize), usize)> {
    let find = |sign: i64, weighed: bool| {
        let mut found = sum.iter().filter(|p| p.sign == sign && p.weight.is_some() == weighed);
        found.next().filter(|_| found.next().is_none())
    };
    let (alone, plus, minus) = (find(1, false)?, find(1, true)?, find(-1, true)?);
    if alone.channel != minus.channel || plus.weight != minus.weight {
        return None;
    }
    let (u, v) = (alone.channel?, plus.channel?);
    Some((usize::from(v > u), (u.min(v), u.max(v)), plus.weight?))
}

/// Whether the softmax over groups of logits is one over the parts of each channel.
pub(super) fn over_radix(group: &[usize], logits: &[usize], radix: usize, channels: usize) -> Verdict {
    for c in 0..channels {
        let mine: Vec<usize> = (0..radix).map(|r| logits[r * channels + c]).collect();
        let of = |l: &usize| group.get(*l).copied();
        let size = of(&mine[0]).map_or(0, |g| group.iter().filter(|&&other| other == g).count());
        if mine.iter().any(|l| of(l) != of(&mine[0])) || size != radix {
            return Verdict::Fails(format!(
                "the weights of channel {c}, logits {mine:?}, are not what a group of the softmax holds ({size} logits)"
            ));
        }
    }
    Verdict::Holds
}

/// Whether the squeeze is of the sum of the parts, and whether it takes all parts' means apart.
pub(super) fn squeezes(sums: &Sums, weighed: &Weighed) -> Option<bool> {
    let (radix, channels) = (weighed.radix, weighed.channels);
    let plain = |s: &[Product]| -> Option<Vec<usize>> {
        let mut v = s.iter().map(|p| p.channel.filter(|_| p.sign == 1)).collect::<Option<Vec<_>>>()?;
        v.sort_unstable();
        Some(v)
    };
    let holds = |f: &dyn Fn(usize) -> Vec<usize>| sums.at.iter().enumerate().all(|(q, s)| plain(s) == Some(f(q)));
    // Channels that are weighed twice have no order of their own.
    let each = weighed.channels_of.iter().collect::<BTreeSet<_>>().len() == radix * channels;
    let of = |i: usize| if each { weighed.channels_of[i] } else { i };
    let parts = |q: usize| {
        let mut all: Vec<usize> = (0..radix).map(|r| of(r * channels + q)).collect();
        all.sort_unstable();
        all
    };
    if sums.at.len() == channels && holds(&parts) {
        return Some(false);
    }
    (sums.at.len() == radix * channels && holds(&|q| vec![of(q)])).then_some(true)
}
