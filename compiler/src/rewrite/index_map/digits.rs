//! Splitting, merging and comparing of digits.

use std::collections::{BTreeMap, BTreeSet};

use convc_runtime::Dim;

use super::{Digit, HOLE, IndexMap, LIMIT, Table};
use crate::rewrite::view::same_shape;

impl Table {
    /// The same over other numbers of digits.
    pub(super) fn renumbered(&self, number: &BTreeMap<Digit, Digit>) -> Option<Table> {
        let digits = self.digits.iter().map(|d| number.get(d).copied()).collect::<Option<_>>()?;
        let mut along: Vec<(Digit, i64)> =
            self.along.iter().map(|(d, s)| Some((*number.get(d)?, *s))).collect::<Option<_>>()?;
        along.sort_unstable();
        Some(Table { digits, values: self.values.clone(), along, extent: self.extent.clone() })
    }
}

/// `a + by * b` for sums of steps along open digits.
pub(super) fn add_along(a: &[(Digit, i64)], b: &[(Digit, i64)], by: i64) -> Option<Vec<(Digit, i64)>> {
    let mut sum: BTreeMap<Digit, i64> = a.iter().copied().collect();
    for (d, s) in b {
        let of = sum.entry(*d).or_insert(0);
        *of = of.checked_add(s.checked_mul(by)?)?;
    }
    Some(sum.into_iter().filter(|(_, s)| *s != 0).collect())
}

impl IndexMap {
    /// Whether the sizes of all digits are numbers.
    pub(super) fn closed(&self, digits: &[Digit]) -> bool {
        digits.iter().all(|d| !self.open.contains_key(d))
    }

    /// The product of the sizes of closed digits.
    #[must_use]
    pub fn size_of(&self, digits: &[Digit]) -> usize {
        debug_assert!(self.closed(digits));
        digits.iter().map(|&d| self.sizes[d]).product()
    }

    /// The product of the sizes of digits.
    #[must_use]
    pub fn dim_of(&self, digits: &[Digit]) -> Dim {
        Dim::product(digits.iter().map(|d| self.open.get(d).cloned().unwrap_or_else(|| Dim::from(self.sizes[*d]))))
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

    /// A new digit of this size, none for a size of 1; `None` for an empty or too large one.
    pub(super) fn digits_of_dim(&mut self, size: &Dim) -> Option<Vec<Digit>> {
        match size.as_fixed() {
            Some(n) => {
                let n = usize::try_from(n).ok().filter(|n| (1..=LIMIT).contains(n))?;
                Some(self.digits_of(&[n]))
            }
            None => {
                self.open.insert(self.sizes.len(), size.clone());
                self.sizes.push(0);
                Some(vec![self.sizes.len() - 1])
            }
        }
    }

    /// A closed digit as two, of which the major one has the size `major`.
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

    /// An open digit that stands in no axis as two: the open major one of the size `major`, which times `minor` is its size for
    /// all values of the symbols, and the closed minor one.
    pub(super) fn split_open(&mut self, digit: Digit, major: &Dim, minor: usize) -> Option<(Digit, Digit)> {
        let (&[a], &[b]) = (self.digits_of_dim(major)?.as_slice(), self.digits_of(&[minor]).as_slice()) else {
            return None;
        };
        for table in &mut self.tables {
            let Some(i) = table.along.iter().position(|(d, _)| *d == digit) else { continue };
            let (_, stride) = table.along.remove(i);
            if table.values.len().checked_mul(minor).is_none_or(|n| n > LIMIT) {
                return None;
            }
            let mut values = Vec::with_capacity(table.values.len() * minor);
            for &v in &table.values {
                for k in 0..minor as i64 {
                    values.push(if v == HOLE { HOLE } else { v.checked_add(stride.checked_mul(k)?)? });
                }
            }
            table.values = values;
            table.digits.push(b);
            table.along = add_along(&table.along, &[(a, minor as i64)], stride)?;
        }
        self.simplify();
        Some((a, b))
    }

    /// Closed digits as one, the first of them major. Axes are left to the caller.
    pub fn merge(&mut self, digits: &[Digit]) -> Option<Digit> {
        if let &[one] = digits {
            return Some(one);
        }
        if !self.closed(digits) {
            return None;
        }
        let size = self.size_of(digits);
        let &[merged] = self.digits_of(&[size]).as_slice() else { return None };
        let values = (0..size as i64).collect();
        let form = Table { digits: vec![merged], values, along: Vec::new(), extent: Dim::from(size) };
        self.replace(digits, &form)?;
        Some(merged)
    }

    /// Puts what `form` says, which may depend on digits that stand elsewhere too, in the place of the position that the
    /// digits `old` make up: in all tables. Where it is a [`HOLE`], the element is 0.
    pub(super) fn replace(&mut self, old: &[Digit], form: &Table) -> Option<()> {
        let mut holes_kept = !form.values.contains(&HOLE);
        let closed = self.closed(old);
        for i in 0..self.tables.len() {
            let table = &self.tables[i];
            let stride = table.along.iter().find(|(d, _)| old.contains(d)).map(|(_, s)| *s);
            if stride.is_none() && !table.digits.iter().any(|d| old.contains(d)) {
                continue;
            }
            holes_kept = true;
            // A coordinate that is a list along a closed axis, or depends on a part of an open one, is not affine.
            if if closed { !form.along.is_empty() } else { old.len() != 1 } {
                return None;
            }
            let mut digits: Vec<Digit> = table.digits.iter().copied().filter(|d| !old.contains(d)).collect();
            digits.extend(form.digits.iter().filter(|d| !table.digits.contains(d)));
            let (bases, places) = (self.walk(table, &digits)?, self.walk(form, &digits)?);
            let at_old = if closed { self.walk(table, old)? } else { Vec::new() };
            let pick = |(base, place): (usize, usize)| -> Option<i64> {
                let (value, picked) = (table.values[base], form.values[place]);
                match stride {
                    _ if picked == HOLE => Some(HOLE),
                    None => table.values.get(base + at_old.get(usize::try_from(picked).ok()?)?).copied(),
                    Some(_) if value == HOLE => Some(HOLE),
                    Some(stride) => value.checked_add(stride.checked_mul(picked)?),
                }
            };
            let values = bases.into_iter().zip(places).map(pick).collect::<Option<Vec<_>>>()?;
            let rest: Vec<(Digit, i64)> = table.along.iter().copied().filter(|(d, _)| !old.contains(d)).collect();
            let along = add_along(&rest, &form.along, stride.unwrap_or(0))?;
            self.tables[i] = Table { digits, values, along, extent: table.extent.clone() };
        }
        if !holes_kept {
            // No coordinate depends on these digits: the smallest table says where the zeros are.
            if !closed || !form.along.is_empty() {
                return None;
            }
            let i = (0..self.tables.len()).min_by_key(|&i| self.tables[i].values.len())?;
            let table = &self.tables[i];
            let mut digits = table.digits.clone();
            digits.extend(form.digits.iter().filter(|d| !table.digits.contains(d)));
            let (bases, places) = (self.walk(table, &digits)?, self.walk(form, &digits)?);
            let pick = |(b, p): (usize, usize)| if form.values[p] == HOLE { HOLE } else { table.values[b] };
            let values = bases.into_iter().zip(places).map(pick).collect();
            self.tables[i] = Table { digits, values, ..table.clone() };
        }
        self.simplify();
        Some(())
    }

    /// How far apart in a table the values of neighbours along each of its closed digits are.
    fn strides(&self, table: &Table) -> BTreeMap<Digit, usize> {
        let mut stride = 1;
        let mut out = BTreeMap::new();
        for &d in table.digits.iter().rev() {
            out.insert(d, stride);
            stride *= self.sizes[d];
        }
        out
    }

    /// Where in a table the values for all choices of these closed digits are, its other digits being 0.
    fn walk(&self, table: &Table, digits: &[Digit]) -> Option<Vec<usize>> {
        let strides = self.strides(table);
        let steps: Vec<(usize, usize)> =
            digits.iter().map(|&d| (self.sizes[d], strides.get(&d).copied().unwrap_or(0))).collect();
        offsets(&steps)
    }

    /// A table's values over these closed digits, which are all it depends on and perhaps more; `None` if it depends on an open
    /// one.
    #[must_use]
    pub fn over(&self, table: &Table, digits: &[Digit]) -> Option<Vec<i64>> {
        if table.digits.iter().any(|d| !digits.contains(d)) || !table.along.is_empty() {
            return None;
        }
        self.listed(table, digits)
    }

    /// A table's values over these closed digits where all open ones are 0.
    pub(super) fn listed(&self, table: &Table, digits: &[Digit]) -> Option<Vec<i64>> {
        Some(self.walk(table, digits)?.into_iter().map(|i| table.values[i]).collect())
    }

    /// Takes the closed digits from each table along which it does not vary, and sorts the others.
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
            let Some(values) = self.listed(table, &needed) else { continue };
            self.tables[i] = Table { digits: needed, values, ..table.clone() };
        }
    }

    /// The same map with each axis cut into digits of these sizes, numbered in the order of the axes.
    fn cut(self, cuts: &[Vec<Dim>]) -> Option<IndexMap> {
        let mut map = self.reshape(&cuts.concat())?;
        for axis in 0..map.rank() {
            if map.axes[axis].len() > 1 {
                let digits = std::mem::take(&mut map.axes[axis]);
                map.axes[axis] = vec![map.merge(&digits)?];
            }
        }
        let order: Vec<Digit> = map.axes.concat();
        let number: BTreeMap<Digit, Digit> = order.iter().enumerate().map(|(new, &old)| (old, new)).collect();
        let sizes = order.iter().map(|&d| map.sizes[d]).collect();
        let open = map.open.iter().filter_map(|(d, n)| Some((*number.get(d)?, n.clone()))).collect();
        let tables = map.tables.iter().map(|t| t.renumbered(&number)).collect::<Option<Vec<_>>>()?;
        let mut axes = map.axes.into_iter().map(|a| a.into_iter().map(|d| number[&d]).collect::<Vec<_>>());
        let axes = cuts.iter().map(|c| axes.by_ref().take(c.len()).flatten().collect()).collect();
        let mut out = IndexMap { sizes, open, axes, tables };
        out.simplify();
        Some(out)
    }
}

/// The offsets that all choices of digits lead to, from (size, stride) of each, row-major.
pub(super) fn offsets(steps: &[(usize, usize)]) -> Option<Vec<usize>> {
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

/// The sizes of the digits that one axis of all these maps can be cut into: closed ones as [`common_cuts`] says; an axis with open
/// ones must be cut in the same way in all of them.
fn axis_cuts(maps: &[&IndexMap], axis: usize) -> Option<Vec<Dim>> {
    let first = maps.first()?;
    if maps.iter().all(|m| m.closed(&m.axes[axis])) {
        let lists: Vec<Vec<usize>> = maps.iter().map(|m| m.axes[axis].iter().map(|&d| m.sizes[d]).collect()).collect();
        let cuts = common_cuts(&lists).unwrap_or_else(|| vec![first.size_of(&first.axes[axis])]);
        return Some(cuts.into_iter().map(Dim::from).collect());
    }
    let list = |m: &IndexMap| m.axes[axis].iter().map(|d| m.dim_of(&[*d])).collect::<Vec<_>>();
    let own = list(first);
    maps.iter().all(|m| same_shape(&list(m), &own) == Some(true)).then_some(own)
}

/// Maps of one shape with the same digits in their axes, numbered in the order of the axes.
pub(super) fn align(maps: Vec<IndexMap>) -> Option<Vec<IndexMap>> {
    let shape = maps.first()?.shape();
    if maps.iter().any(|m| same_shape(&m.shape(), &shape) != Some(true)) {
        return None;
    }
    let all: Vec<&IndexMap> = maps.iter().collect();
    let cuts: Vec<Vec<Dim>> = (0..shape.len()).map(|axis| axis_cuts(&all, axis)).collect::<Option<_>>()?;
    maps.into_iter().map(|m| m.cut(&cuts)).collect()
}

/// Maps over the same sources, one behind the other along `axis`, which must be closed.
pub(super) fn concat(maps: Vec<IndexMap>, axis: usize) -> Option<IndexMap> {
    let (mut heads, mut extents) = (Vec::new(), Vec::new());
    let tables = maps.first()?.tables.len();
    for mut map in maps {
        if map.tables.len() != tables {
            return None;
        }
        // The axis becomes one digit behind all others, by which the parts differ.
        let digits = map.axes.get(axis)?.clone();
        if !map.closed(&digits) {
            return None;
        }
        extents.push(map.size_of(&digits));
        map.axes.remove(axis);
        heads.push((map, digits));
    }
    // The other axes get common digits first; the extents may differ, so each map keeps its own digit aside.
    let shape = heads[0].0.shape();
    if heads.iter().any(|(m, _)| same_shape(&m.shape(), &shape) != Some(true)) {
        return None;
    }
    let all: Vec<&IndexMap> = heads.iter().map(|h| &h.0).collect();
    let cuts: Vec<Vec<Dim>> = (0..shape.len()).map(|a| axis_cuts(&all, a)).collect::<Option<_>>()?;
    let mut parts = Vec::new();
    for ((mut map, digits), &extent) in heads.into_iter().zip(&extents) {
        map.axes.push(digits);
        let own = if extent == 1 { Vec::new() } else { vec![Dim::from(extent)] };
        parts.push(map.cut(&[cuts.as_slice(), &[own]].concat())?);
    }
    let count = cuts.iter().map(Vec::len).sum();
    let first = parts.first()?;
    let mut sizes: Vec<usize> = first.sizes[..count].to_vec();
    let open: BTreeMap<Digit, Dim> = first.open.clone();
    let others: Vec<Digit> = (0..count).filter(|d| !open.contains_key(d)).collect();
    let along = sizes.len();
    let total: usize = extents.iter().sum();
    sizes.push(total);
    let mut out = IndexMap { sizes, open, axes: first.axes.clone(), tables: Vec::new() };
    out.axes.pop();
    out.axes.insert(axis, if total == 1 { Vec::new() } else { vec![along] });
    for t in 0..tables {
        let needed: BTreeSet<Digit> =
            parts.iter().flat_map(|m| m.tables[t].digits.iter().copied()).filter(|d| others.contains(d)).collect();
        let needed: Vec<Digit> = needed.into_iter().collect();
        let rows = out.size_of(&needed);
        let table = &first.tables[t];
        // All parts must take the same steps along the open digits.
        if rows.checked_mul(total).is_none_or(|n| n > LIMIT) || parts.iter().any(|m| m.tables[t].along != table.along) {
            return None;
        }
        let mut values = vec![0; rows * total];
        let mut begin = 0;
        for (map, &extent) in parts.iter().zip(&extents) {
            let digits = if extent == 1 { needed.clone() } else { [needed.as_slice(), &[along]].concat() };
            let own = map.listed(&map.tables[t], &digits)?;
            for (row, part) in own.chunks(extent).enumerate() {
                values[row * total + begin..][..extent].copy_from_slice(part);
            }
            begin += extent;
        }
        let digits = if total == 1 { needed } else { [needed.as_slice(), &[along]].concat() };
        out.tables.push(Table { digits, values, along: table.along.clone(), extent: table.extent.clone() });
    }
    out.simplify();
    Some(out)
}
