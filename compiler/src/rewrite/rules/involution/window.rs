//! Reading a window off the index maps of a sum of products: kernel map times neighbours, summed over taps.

use std::collections::BTreeSet;

use convc_runtime::{Bindings, ops::Involution};

use crate::rewrite::index_map::{Digit, IndexMap, Table};

/// Which axis of `[N, C, E..]` a digit belongs to, and its place among that axis' digits.
pub(super) type Place = (usize, usize);

/// What was read at one choice of sizes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reading {
    pub(super) kernel_shape: Vec<i64>,
    pub(super) strides: Vec<i64>,
    pub(super) pads: Vec<i64>,
    /// The least padding at each end, which may be larger by less than a stride.
    pub(super) ends: Vec<i64>,
    pub(super) dilations: Vec<i64>,
    pub(super) group: i64,
    /// Which channel of the kernel map is tap t of group g, if it is not `g*T + t`.
    pub(super) select: Option<Vec<i64>>,
    /// The digits of each axis of the result, and their sizes.
    pub(super) layout: Vec<Vec<(Place, usize)>>,
    /// Why the neighbours are not those of this window.
    pub(super) not_a_window: Option<String>,
    /// Why a kernel is not shared by just the channels of a group.
    pub(super) not_grouped: Option<String>,
}

impl Reading {
    /// Whether two readings tell of the same operator, whatever the sizes.
    pub(super) fn agrees(&self, other: &Reading) -> bool {
        self.kernel_shape == other.kernel_shape
            && self.strides == other.strides
            && self.pads == other.pads
            && self.dilations == other.dilations
            && self.group == other.group
            && self.select == other.select
            && self.places() == other.places()
    }

    /// The digits of each axis of the result.
    fn places(&self) -> Vec<Vec<Place>> {
        self.layout.iter().map(|axis| axis.iter().map(|(p, _)| *p).collect()).collect()
    }

    /// The operator, with this padding at the ends.
    pub(super) fn operator(&self, ends: &[i64]) -> Involution {
        Involution {
            kernel_shape: self.kernel_shape.clone(),
            strides: self.strides.clone(),
            pads: [self.pads.as_slice(), ends].concat(),
            dilations: self.dilations.clone(),
            group: self.group,
        }
    }
}

/// Reads an involution off a map whose tables are those of the kernel map and then those of x, at chosen sizes; the axes from
/// `kept` on are summed over. `None` if it has not the form of one at all.
pub(super) fn read(open: &IndexMap, kept: usize, sizes: &Bindings) -> Option<Reading> {
    let rank = open.tables.len() / 2;
    let summed: Vec<Digit> = open.axes.get(kept..)?.concat();
    let numbered = summed.iter().all(|d| !open.open.contains_key(d));
    if rank < 3 || open.tables.len() != 2 * rank || summed.is_empty() || !numbered {
        return None;
    }
    // What is whole here is so for all sizes: the axes of the kernel map and the samples and channels of x.
    if !open.tables.iter().take(rank + 2).all(|t| open.is_whole(t)) {
        return None;
    }
    let mut map = open.at(sizes)?;
    let extents: Vec<usize> =
        map.tables.iter().map(|t| usize::try_from(t.extent.as_fixed()?).ok()).collect::<Option<_>>()?;
    let (kernel, x) = extents.split_at(rank);
    let taps = map.size_of(&summed);
    map.axes.truncate(kept);
    let tap = map.merge(&summed)?;
    let (of_kernel, of_x) = map.tables.split_at(rank);
    let none_padded = |t: &Table| t.values.iter().all(|v| *v >= 0);
    if !of_kernel.iter().all(none_padded) || !of_x[..2].iter().all(none_padded) {
        return None;
    }

    // The digits of the result's axes N, C, E..: each belongs to one.
    let mut roles: Vec<Vec<Digit>> = vec![of_x[0].digits.clone(), of_x[1].digits.clone()];
    roles.extend(of_kernel[2..].iter().map(|t| t.digits.clone()));
    let owned: Vec<Digit> = roles.concat();
    let free: Vec<Digit> = map.axes.concat();
    let distinct: BTreeSet<Digit> = owned.iter().copied().collect();
    if distinct.len() != owned.len() || distinct != free.iter().copied().collect() || owned.contains(&tap) {
        return None;
    }
    if of_kernel[0] != of_x[0] || of_kernel[0].digits.is_empty() && (kernel[0] != 1 || x[0] != 1) {
        return None;
    }
    let axes: Vec<&Table> = of_x[..2].iter().chain(&of_kernel[2..]).collect();
    let sizes: Vec<usize> = x[..2].iter().chain(&kernel[2..]).copied().collect();
    let mut places = std::collections::BTreeMap::new();
    for (axis, (table, &n)) in axes.iter().zip(&sizes).enumerate() {
        for (k, d) in mixed_radix(&map, table, n)?.into_iter().enumerate() {
            places.insert(d, (axis, k));
        }
    }
    let layout = map.axes.iter().map(|a| a.iter().map(|d| (places[d], map.sizes[*d])).collect()).collect();

    // Where each tap lies along each axis.
    let offsets: Vec<Offsets> =
        (2..rank).map(|a| Offsets::of(&map, &of_x[a], &of_kernel[a], tap, taps)).collect::<Option<_>>()?;
    let kernel_shape: Vec<i64> = offsets.iter().map(|o| o.distinct.len() as i64).collect();
    if kernel_shape.iter().product::<i64>() != taps as i64 {
        return None;
    }
    let order: Vec<usize> = (0..taps)
        .map(|t| offsets.iter().try_fold(0, |at, o| Some(at * o.distinct.len() + o.rank(t)?)))
        .collect::<Option<_>>()?;
    let mut at_place = vec![usize::MAX; taps];
    for (t, &place) in order.iter().enumerate() {
        if std::mem::replace(&mut at_place[place], t) != usize::MAX {
            return None;
        }
    }
    let not_a_window = offsets
        .iter()
        .zip(2..)
        .find_map(|(o, axis)| o.misfit(x[axis] as i64).map(|why| format!("along axis {axis} of x {why}")));

    // The kernel map's channels.
    let (channels, of_channel) = (x[1], &of_kernel[1]);
    let groups = kernel[1] / taps;
    if groups == 0 || !kernel[1].is_multiple_of(taps) || !channels.is_multiple_of(groups) {
        return None;
    }
    let all: Vec<Digit> = roles[1].iter().copied().chain([tap]).collect();
    let chosen = map.over(of_channel, &all)?;
    let channel = map.over(&of_x[1], &roles[1])?;
    let mut rows: Vec<&[i64]> = vec![&[]; channels];
    for (row, &c) in chosen.chunks(taps).zip(&channel) {
        *rows.get_mut(usize::try_from(c).ok()?)? = row;
    }
    let select: Vec<i64> = (0..groups)
        .flat_map(|g| at_place.iter().map(move |&t| (g, t)))
        .map(|(g, t)| rows[g * channels / groups].get(t).copied())
        .collect::<Option<_>>()?;
    let odd = (0..channels).find(|&c| rows[c] != rows[c * groups / channels * channels / groups]);
    let not_grouped = odd
        .map(|c| format!("channel {c} has another kernel than channel {}", c * groups / channels * channels / groups));
    let in_order = select.iter().enumerate().all(|(i, &c)| c == i as i64);

    let strides: Vec<i64> = offsets.iter().map(|o| o.stride).collect();
    let pads: Vec<i64> = offsets.iter().map(|o| -o.distinct[0]).collect();
    let dilations: Vec<i64> = offsets.iter().map(Offsets::dilation).collect();
    let ends = (0..rank - 2)
        .map(|a| {
            let extent = dilations[a] * (kernel_shape[a] - 1) + 1;
            strides[a] * (kernel[a + 2] as i64 - 1) + extent - x[a + 2] as i64 - pads[a]
        })
        .collect::<Vec<_>>();
    // A window may not begin within the map, nor end there by more than a stride.
    let expressible = pads.iter().all(|&p| p >= 0) && ends.iter().zip(&strides).all(|(&e, &s)| e + s > 0);
    expressible.then_some(Reading {
        kernel_shape,
        strides,
        pads,
        ends,
        dilations,
        group: groups as i64,
        select: (!in_order).then_some(select),
        layout,
        not_a_window,
        not_grouped,
    })
}

impl IndexMap {
    /// Whether the open digits of a table, with the closed ones, are as many positions as the source's axis has, for all sizes.
    fn is_whole(&self, table: &Table) -> bool {
        let digits: Vec<Digit> = table.digits.iter().copied().chain(table.along.iter().map(|(d, _)| *d)).collect();
        table.along.is_empty() && table.extent.is_fixed() || self.dim_of(&digits).equals(&table.extent) == Some(true)
    }
}

/// The digits of a table that counts from 0 to `n - 1`, the major one first.
fn mixed_radix(map: &IndexMap, table: &Table, n: usize) -> Option<Vec<Digit>> {
    if table.values.len() != n || table.values.first() != Some(&0) {
        return None;
    }
    // The step along each digit.
    let mut inner = n;
    let mut steps: Vec<(i64, Digit)> = Vec::new();
    for &d in &table.digits {
        inner /= map.sizes[d];
        steps.push((*table.values.get(inner)?, d));
    }
    steps.sort_unstable_by(|a, b| b.cmp(a));
    let order: Vec<Digit> = steps.iter().map(|s| s.1).collect();
    let counted = map.over(table, &order)?;
    counted.iter().enumerate().all(|(i, &v)| v == i as i64).then_some(order)
}

/// The positions along one axis of x, as `stride * position + offset of the tap`.
struct Offsets {
    stride: i64,
    /// The offset of each tap.
    each: Vec<i64>,
    /// The offsets there are, ascending.
    distinct: Vec<i64>,
    /// The positions, by tap and then by output.
    values: Vec<Vec<i64>>,
}

impl Offsets {
    /// Reads positions that depend on the tap and, along `along`, on the output.
    fn of(map: &IndexMap, table: &Table, along: &Table, tap: Digit, taps: usize) -> Option<Offsets> {
        let digits: Vec<Digit> = [tap].into_iter().chain(along.digits.iter().copied()).collect();
        let all = map.over(table, &digits)?;
        let place = map.over(along, &along.digits)?;
        let outputs = place.len();
        let mut values = vec![vec![-1; outputs]; taps];
        for (t, row) in all.chunks(outputs).enumerate() {
            for (&p, &v) in place.iter().zip(row) {
                *values[t].get_mut(usize::try_from(p).ok()?)? = v;
            }
        }
        let steps = |row: &Vec<i64>| row.windows(2).find(|w| w[0] >= 0 && w[1] >= 0).map(|w| w[1] - w[0]);
        let stride = values.iter().find_map(steps).unwrap_or(1);
        if stride < 1 {
            return None;
        }
        let each: Vec<i64> = values
            .iter()
            .map(|row| row.iter().zip(0..).find(|(v, _)| **v >= 0).map(|(v, p)| v - stride * p))
            .collect::<Option<_>>()?;
        let distinct: Vec<i64> = each.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        Some(Offsets { stride, each, distinct, values })
    }

    /// How far apart neighbouring taps are, as the first two are.
    fn dilation(&self) -> i64 {
        match self.distinct.as_slice() {
            [a, b, ..] => b - a,
            _ => 1,
        }
    }

    /// The place of a tap among those along this axis.
    fn rank(&self, tap: usize) -> Option<usize> {
        self.distinct.binary_search(self.each.get(tap)?).ok()
    }

    /// Why the positions are not those of a window over an axis of `n`.
    fn misfit(&self, n: i64) -> Option<String> {
        for (t, row) in self.values.iter().enumerate() {
            let offset = self.distinct[0] + self.dilation() * self.rank(t).map_or(0, |r| r as i64);
            for (p, &found) in row.iter().enumerate() {
                let wanted = Some(self.stride * p as i64 + offset).filter(|v| (0..n).contains(v)).unwrap_or(-1);
                if wanted != found {
                    let tell = |v: i64| if v < 0 { "padding".to_owned() } else { format!("element {v}") };
                    return Some(format!("output {p} takes {} and not {}", tell(found), tell(wanted)));
                }
            }
        }
        None
    }
}
