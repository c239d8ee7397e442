//! Splitting, merging and comparing of digits.

use std::collections::{BTreeMap, BTreeSet};

use super::{Digit, IndexMap, LIMIT, Table};

impl IndexMap {
    /// The product of the sizes of digits.
    #[must_use]
    pub fn size_of(&self, digits: &[Digit]) -> usize {
        digits.iter().map(|&d| self.sizes[d]).product()
    }

    /// New digits of these sizes, none for a size of 1.
    pub(super) fn digits_of(&mut self, sizes: &[usize]) -> Vec<Digit> {
        let mut digits = Vec::new();
        for &n in sizes.iter().filter(|&&n| n != 1) {
            digits.push(self.sizes.len());
            self.sizes.push(n);
        }
        digits
    }

    /// A digit as two, of which the major one has the size `major`.
    pub(super) fn split(&mut self, digit: Digit, major: usize) -> Option<(Digit, Digit)> {
        let size = self.sizes[digit];
        if major < 2 || major >= size || !size.is_multiple_of(major) {
            return None;
        }
        let &[a, b] = self.digits_of(&[major, size / major]).as_slice() else { return None };
        let parts = |digits: &mut Vec<Digit>| {
            if let Some(i) = digits.iter().position(|&d| d == digit) {
                digits.splice(i..=i, [a, b]);
            }
        };
        self.tables.iter_mut().for_each(|t| parts(&mut t.digits));
        self.axes.iter_mut().for_each(parts);
        self.simplify();
        Some((a, b))
    }

    /// Digits as one, the first of them major. Axes are left to the caller.
    pub fn merge(&mut self, digits: &[Digit]) -> Option<Digit> {
        if let &[one] = digits {
            return Some(one);
        }
        let size = self.size_of(digits);
        let &[merged] = self.digits_of(&[size]).as_slice() else { return None };
        let picks: Vec<i64> = (0..size as i64).collect();
        self.replace(digits, &[merged], &picks)?;
        Some(merged)
    }

    /// Puts the digits `new` in the place of `old` in all tables: where they stand for `i`, the old ones stand for `picks[i]`, or
    /// the element is 0.
    pub(super) fn replace(&mut self, old: &[Digit], new: &[Digit], picks: &[i64]) -> Option<()> {
        let mut zeros_kept = picks.iter().all(|&p| p >= 0);
        for i in 0..self.tables.len() {
            let table = &self.tables[i];
            if !table.digits.iter().any(|d| old.contains(d)) {
                continue;
            }
            zeros_kept = true;
            let others: Vec<Digit> = table.digits.iter().copied().filter(|d| !old.contains(d)).collect();
            let strides = self.strides(table);
            let at = |digits: &[Digit]| -> Option<Vec<usize>> {
                let steps: Vec<(usize, usize)> =
                    digits.iter().map(|&d| (self.sizes[d], strides.get(&d).copied().unwrap_or(0))).collect();
                offsets(&steps)
            };
            let (bases, places) = (at(&others)?, at(old)?);
            if bases.len().checked_mul(picks.len()).is_none_or(|n| n > LIMIT) {
                return None;
            }
            let mut values = Vec::with_capacity(bases.len() * picks.len());
            for base in bases {
                for &p in picks {
                    values.push(match usize::try_from(p) {
                        Ok(p) => table.values[base + places[p]],
                        Err(_) => -1,
                    });
                }
            }
            self.tables[i] = Table { digits: [others.as_slice(), new].concat(), values };
        }
        if !zeros_kept {
            // No coordinate depends on these digits: the smallest table says where the zeros are.
            let i = (0..self.tables.len()).min_by_key(|&i| self.tables[i].values.len())?;
            let table = &self.tables[i];
            if table.values.len().checked_mul(picks.len()).is_none_or(|n| n > LIMIT) {
                return None;
            }
            let values = table.values.iter().flat_map(|&v| picks.iter().map(move |&p| if p < 0 { -1 } else { v }));
            let values = values.collect();
            self.tables[i] = Table { digits: [table.digits.as_slice(), new].concat(), values };
        }
        self.simplify();
        Some(())
    }

    /// Takes the diagonal on which the digits `own`, which stand in no axis any more, are equal to `other`, of the same sizes in all.
    pub(super) fn identify(&mut self, own: &[Digit], other: &[Digit]) -> Option<()> {
        if self.size_of(own) != self.size_of(other) {
            return None;
        }
        if own.is_empty() {
            return Some(());
        }
        let (own, whole) = (self.merge(own)?, other.to_vec());
        for i in 0..self.tables.len() {
            let table = &self.tables[i];
            if !table.digits.contains(&own) {
                continue;
            }
            let mut digits: Vec<Digit> = table.digits.iter().copied().filter(|d| *d != own).collect();
            digits.extend(whole.iter().filter(|d| !table.digits.contains(d)));
            let strides = self.strides(table);
            let mut steps: Vec<(usize, usize)> =
                digits.iter().map(|d| (self.sizes[*d], strides.get(d).copied().unwrap_or(0))).collect();
            // A step along a digit of `other` is one along `own` too.
            let mut step = strides[&own];
            for d in whole.iter().rev() {
                if let Some(k) = digits.iter().position(|x| x == d) {
                    steps[k].1 += step;
                }
                step *= self.sizes[*d];
            }
            let values = offsets(&steps)?.into_iter().map(|i| table.values[i]).collect();
            self.tables[i] = Table { digits, values };
        }
        self.simplify();
        Some(())
    }

    /// How far apart in a table the values of neighbours along each of its digits are.
    fn strides(&self, table: &Table) -> BTreeMap<Digit, usize> {
        let mut stride = 1;
        let mut out = BTreeMap::new();
        for &d in table.digits.iter().rev() {
            out.insert(d, stride);
            stride *= self.sizes[d];
        }
        out
    }

    /// A table's values over these digits, which are all it depends on and perhaps more.
    #[must_use]
    pub fn over(&self, table: &Table, digits: &[Digit]) -> Option<Vec<i64>> {
        if table.digits.iter().any(|d| !digits.contains(d)) {
            return None;
        }
        let strides = self.strides(table);
        let steps: Vec<(usize, usize)> =
            digits.iter().map(|&d| (self.sizes[d], strides.get(&d).copied().unwrap_or(0))).collect();
        Some(offsets(&steps)?.into_iter().map(|i| table.values[i]).collect())
    }

    /// Takes the digits from each table along which it does not vary, and sorts the others.
    pub(super) fn simplify(&mut self) {
        for i in 0..self.tables.len() {
            let table = &self.tables[i];
            let mut inner = table.values.len();
            let mut needed = Vec::new();
            for &d in &table.digits {
                let block = inner;
                inner /= self.sizes[d];
                let varies = table.values.chunks(block).any(|b| b.chunks(inner).any(|c| c != &b[..inner]));
                if varies {
                    needed.push(d);
                }
            }
            needed.sort_unstable();
            if needed == table.digits {
                continue;
            }
            let strides = self.strides(table);
            let steps: Vec<(usize, usize)> = needed.iter().map(|&d| (self.sizes[d], strides[&d])).collect();
            let Some(at) = offsets(&steps) else { continue };
            let values = at.into_iter().map(|i| table.values[i]).collect();
            self.tables[i] = Table { digits: needed, values };
        }
    }

    /// The same map with each axis cut into digits of these sizes, numbered in the order of the axes.
    fn cut(self, cuts: &[Vec<usize>]) -> Option<IndexMap> {
        let fine = self.reshape(&cuts.concat())?;
        let mut map = fine;
        for axis in 0..map.rank() {
            if map.axes[axis].len() > 1 {
                let digits = std::mem::take(&mut map.axes[axis]);
                map.axes[axis] = vec![map.merge(&digits)?];
            }
        }
        let order: Vec<Digit> = map.axes.concat();
        let number: BTreeMap<Digit, Digit> = order.iter().enumerate().map(|(new, &old)| (old, new)).collect();
        let sizes = order.iter().map(|&d| map.sizes[d]).collect();
        let tables = map
            .tables
            .into_iter()
            .map(|t| {
                let digits = t.digits.iter().map(|d| number.get(d).copied()).collect::<Option<Vec<_>>>()?;
                Some(Table { digits, ..t })
            })
            .collect::<Option<Vec<_>>>()?;
        let mut axes = map.axes.into_iter().map(|a| a.into_iter().map(|d| number[&d]).collect::<Vec<_>>());
        let axes = cuts.iter().map(|c| axes.by_ref().take(c.len()).flatten().collect()).collect();
        let mut out = IndexMap { sizes, axes, tables };
        out.simplify();
        Some(out)
    }
}

/// The offsets that all choices of digits lead to, from (size, stride) of each, row-major.
fn offsets(steps: &[(usize, usize)]) -> Option<Vec<usize>> {
    let mut out = vec![0usize];
    for &(size, stride) in steps {
        if out.len().checked_mul(size).is_none_or(|n| n > LIMIT) {
            return None;
        }
        out = out.into_iter().flat_map(|base| (0..size).map(move |i| base + i * stride)).collect();
    }
    Some(out)
}

/// The coarsest digits that all of these lists of digits' sizes, of one product, can be cut into; `None` if there are none.
fn common_cuts(lists: &[Vec<usize>]) -> Option<Vec<usize>> {
    let mut ends: BTreeSet<usize> = BTreeSet::new();
    for list in lists {
        let mut product = 1;
        for &n in list.iter().rev() {
            product *= n;
            ends.insert(product);
        }
    }
    let mut sizes = Vec::new();
    let mut before = 1;
    for end in ends {
        if !end.is_multiple_of(before) {
            return None;
        }
        sizes.push(end / before);
        before = end;
    }
    sizes.reverse();
    Some(sizes)
}

/// Maps of one shape with the same digits in their axes, numbered in the order of the axes.
pub(super) fn align(maps: Vec<IndexMap>) -> Option<Vec<IndexMap>> {
    let shape = maps.first()?.shape();
    if maps.iter().any(|m| m.shape() != shape) {
        return None;
    }
    let cuts: Vec<Vec<usize>> = shape
        .iter()
        .enumerate()
        .map(|(axis, &n)| {
            let lists: Vec<Vec<usize>> =
                maps.iter().map(|m| m.axes[axis].iter().map(|&d| m.sizes[d]).collect()).collect();
            common_cuts(&lists).unwrap_or_else(|| vec![n])
        })
        .collect();
    maps.into_iter().map(|m| m.cut(&cuts)).collect()
}

/// Maps over the same sources, one behind the other along `axis`.
pub(super) fn concat(maps: Vec<IndexMap>, axis: usize) -> Option<IndexMap> {
    let (mut heads, mut extents) = (Vec::new(), Vec::new());
    let tables = maps.first()?.tables.len();
    for mut map in maps {
        if map.tables.len() != tables {
            return None;
        }
        // The axis becomes one digit behind all others, by which the parts differ.
        let digits = map.axes.get(axis)?.clone();
        extents.push(map.size_of(&digits));
        let last = map.axes.len();
        map.axes.remove(axis);
        map.axes.push(Vec::new());
        heads.push((map, digits, last));
    }
    // The other axes get common digits first; the extents may differ, so each map keeps its own digit aside.
    let shape = heads[0].0.shape();
    if heads.iter().any(|(m, ..)| m.shape() != shape) {
        return None;
    }
    let cuts: Vec<Vec<usize>> = (0..shape.len().saturating_sub(1))
        .map(|a| {
            let lists: Vec<Vec<usize>> =
                heads.iter().map(|(m, ..)| m.axes[a].iter().map(|&d| m.sizes[d]).collect()).collect();
            common_cuts(&lists).unwrap_or_else(|| vec![shape[a]])
        })
        .collect();
    let mut parts = Vec::new();
    for ((mut map, digits, _), &extent) in heads.into_iter().zip(&extents) {
        map.axes.pop();
        map.axes.push(digits);
        let all = [cuts.as_slice(), &[if extent == 1 { Vec::new() } else { vec![extent] }]].concat();
        parts.push(map.cut(&all)?);
    }
    let others: Vec<Digit> = (0..cuts.iter().map(Vec::len).sum()).collect();
    let total: usize = extents.iter().sum();
    let first = parts.first()?;
    let mut sizes: Vec<usize> = first.sizes[..others.len()].to_vec();
    let along = sizes.len();
    sizes.push(total);
    let mut out = IndexMap { sizes, axes: first.axes.clone(), tables: Vec::new() };
    out.axes.pop();
    out.axes.insert(axis, if total == 1 { Vec::new() } else { vec![along] });
    for t in 0..tables {
        let needed: BTreeSet<Digit> =
            parts.iter().flat_map(|m| m.tables[t].digits.iter().copied()).filter(|d| others.contains(d)).collect();
        let needed: Vec<Digit> = needed.into_iter().collect();
        let rows = out.size_of(&needed);
        if rows.checked_mul(total).is_none_or(|n| n > LIMIT) {
            return None;
        }
        let mut values = vec![0; rows * total];
        let mut begin = 0;
        for (map, &extent) in parts.iter().zip(&extents) {
            let digits = if extent == 1 { needed.clone() } else { [needed.as_slice(), &[along]].concat() };
            let own = map.over(&map.tables[t], &digits)?;
            for (row, part) in own.chunks(extent).enumerate() {
                values[row * total + begin..][..extent].copy_from_slice(part);
            }
            begin += extent;
        }
        let digits = if total == 1 { needed } else { [needed.as_slice(), &[along]].concat() };
        out.tables.push(Table { digits, values });
    }
    out.simplify();
    Some(out)
}
