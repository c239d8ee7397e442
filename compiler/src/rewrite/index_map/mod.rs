//! [`IndexMap`]: which element of its sources each element of a tensor is, for chains of operators that only move data.
//!
//! The axes of the result are lists of *digits* (mixed radix, the major one first), and each axis of a source has a
//! [`Table`]: its coordinate as a function of the few digits it depends on. Splitting and merging of digits is what reshapes
//! do, so the map of an unfolded map of `C*H*W` elements and `T` taps has tables of `C`, `H*kh` and `W*kw` entries and never one
//! of `C*H*W*T`.
//!
//! [`chain`] makes the map of a value over one of those it is made of, operator by operator ([`mod@step`]), [`indices`] makes the tensors of indices that it needs,
//! [`sizes`] says what shapes are, and [`generic`] chooses the sizes at which a map is read.
//!
//! # What a map proves
//! A digit is *closed* (its size is a number) or *open* (its size is an expression over symbols). In a closed digit a coordinate
//! is any function, listed entry by entry; in an open one it is affine:
//!
//! ```text
//! coordinate = values[closed digits] + sum of stride * digit over the open ones        (strides are numbers)
//! element    = source[coordinates] where each lies in 0..extent of its axis, else 0
//! ```
//!
//! Every operation keeps this form for *all* sizes at once, or gives no map: a reshape must cut the digits at the same places for
//! all sizes (the products are equal as expressions), a slice of an open axis must begin at a number, an index must be proved
//! to lie within its axis, padding must be proved to fall outside of an extent. What turns at some size has no such form:
//! the two ends of a concatenation along an open axis, a quotient or a remainder of an open digit, a position that
//! depends on a size. A minimum may be the *size* of a digit, which is compared as an expression and never as a number.
//!
//! So an index map is not a sample. A rule that reads a map at chosen sizes ([`IndexMap::at`]) compares two affine forms with
//! the same guard, and two such forms are equal for all sizes if they are equal at two positions along each open digit for each
//! choice of the closed ones. The sizes of [`generic`] give more positions than that, since every open digit is larger
//! there than all numbers in the forms.

pub mod chain;
mod digits;
pub mod generic;
pub mod indices;
pub mod sizes;
pub mod step;
mod unfold;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use convc_runtime::Dim;

use crate::rewrite::view::same_shape;

/// A digit of an [`IndexMap`], by its number.
pub type Digit = usize;

/// Entries that one table may have.
const LIMIT: usize = 1 << 21;

/// The value in a table where there is no source: the element is a 0 of padding.
pub const HOLE: i64 = i64::MIN;

/// A coordinate as a function of digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The closed digits it depends on.
    pub digits: Vec<Digit>,
    /// For each choice of them, row-major, the coordinate where all open digits are 0; or [`HOLE`].
    pub values: Vec<i64>,
    /// The open digits it depends on, ascending, each with what one step along it adds.
    pub along: Vec<(Digit, i64)>,
    /// The size of the source's axis.
    pub extent: Dim,
}

/// Where the elements of a tensor come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexMap {
    /// The sizes of the closed digits; 0 for an open one.
    pub sizes: Vec<usize>,
    /// The sizes of the open digits.
    pub open: BTreeMap<Digit, Dim>,
    /// The digits of each axis, the major one first; none for a size of 1.
    pub axes: Vec<Vec<Digit>>,
    /// The coordinate along each axis of the source (of the sources, one behind the other). An element is 0 if any is a
    /// [`HOLE`] or lies outside of its extent.
    pub tables: Vec<Table>,
}

impl IndexMap {
    /// The map of a tensor over itself; `None` if it is empty or too large along an axis.
    #[must_use]
    pub fn identity(shape: &[Dim]) -> Option<IndexMap> {
        let mut map = IndexMap::empty();
        for n in shape {
            let digits = map.digits_of_dim(n)?;
            let mut table = Table { digits: Vec::new(), values: vec![0], along: Vec::new(), extent: n.clone() };
            match digits.first() {
                Some(d) if map.open.contains_key(d) => table.along.push((*d, 1)),
                Some(d) => {
                    table.values = (0..map.sizes[*d] as i64).collect();
                    table.digits = digits.clone();
                }
                None => {}
            }
            map.tables.push(table);
            map.axes.push(digits);
        }
        Some(map)
    }

    fn empty() -> IndexMap {
        IndexMap { sizes: Vec::new(), open: BTreeMap::new(), axes: Vec::new(), tables: Vec::new() }
    }

    /// The shape of the result.
    #[must_use]
    pub fn shape(&self) -> Vec<Dim> {
        self.axes.iter().map(|digits| self.dim_of(digits)).collect()
    }

    /// The shape of the result, if it is fixed.
    #[must_use]
    pub fn fixed_shape(&self) -> Option<Vec<usize>> {
        self.axes.iter().map(|digits| self.closed(digits).then(|| self.size_of(digits))).collect()
    }

    /// Number of axes.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.axes.len()
    }

    /// The axes in another order: axis `i` of the result is axis `order[i]`.
    #[must_use]
    pub fn transpose(mut self, order: &[usize]) -> Option<IndexMap> {
        self.axes = order.iter().map(|&a| self.axes.get(a).cloned()).collect::<Option<_>>()?;
        Some(self)
    }

    /// An axis of size 1 before axis `at`.
    #[must_use]
    pub fn unsqueeze(mut self, at: usize) -> Option<IndexMap> {
        if at > self.rank() {
            return None;
        }
        self.axes.insert(at, Vec::new());
        Some(self)
    }

    /// The elements in the same order under another shape, which must cut the digits at the same places for all sizes.
    #[must_use]
    pub fn reshape(mut self, shape: &[Dim]) -> Option<IndexMap> {
        let mut left: VecDeque<Digit> = self.axes.concat().into();
        self.axes.clear();
        for n in shape {
            let axis = match n.as_fixed() {
                Some(n) => self.take(&mut left, usize::try_from(n).ok()?)?,
                None => self.take_open(&mut left, n)?,
            };
            self.axes.push(axis);
        }
        left.is_empty().then_some(self)
    }

    /// Takes digits that make up an axis of `n` from the front.
    fn take(&mut self, left: &mut VecDeque<Digit>, n: usize) -> Option<Vec<Digit>> {
        let mut taken: Vec<Digit> = Vec::new();
        if n == 0 {
            return None;
        }
        loop {
            let so_far = self.size_of(&taken);
            if so_far == n {
                return Some(taken);
            }
            let next = self.next_closed(left)?;
            let size = self.sizes[next];
            if n.is_multiple_of(so_far * size) {
                taken.push(next);
            } else if n.is_multiple_of(so_far) && size.is_multiple_of(n / so_far) {
                let (major, minor) = self.split(next, n / so_far)?;
                taken.push(major);
                left.push_front(minor);
            } else {
                // The new axis ends within a digit: those before it and it become one that can be split there.
                taken.push(next);
                let mut merged = taken;
                while !self.size_of(&merged).is_multiple_of(n) {
                    let next = self.next_closed(left)?;
                    merged.push(next);
                }
                let whole = self.merge(&merged)?;
                let (major, minor) = self.split(whole, n)?;
                left.push_front(minor);
                return Some(vec![major]);
            }
        }
    }

    fn next_closed(&self, left: &mut VecDeque<Digit>) -> Option<Digit> {
        left.pop_front().filter(|d| !self.open.contains_key(d))
    }

    /// Takes digits whose product is an open size, for all values of its symbols, from the front.
    fn take_open(&mut self, left: &mut VecDeque<Digit>, n: &Dim) -> Option<Vec<Digit>> {
        // Whole digits need no quotient, which is no expression where a size may be 0.
        let mut product = Dim::fixed(1);
        for i in 0..left.len() {
            product = product * self.dim_of(&[left[i]]);
            if product.equals(n) == Some(true) {
                return Some(left.drain(..=i).collect());
            }
        }
        let mut taken: Vec<Digit> = Vec::new();
        let mut rest = n.clone();
        while rest != Dim::fixed(1) {
            if let Some(rest) = rest.as_fixed() {
                taken.extend(self.take(left, usize::try_from(rest).ok()?)?);
                break;
            }
            let next = left.pop_front()?;
            let size = self.dim_of(&[next]);
            let quotient = rest.floor_div(&size);
            if (&quotient * &size).equals(&rest) == Some(true) {
                taken.push(next);
                rest = quotient;
                continue;
            }
            let minor = size.floor_div(&rest).as_fixed().filter(|m| *m > 1)?;
            if (&rest * minor).equals(&size) != Some(true) {
                return None;
            }
            let (major, minor) = self.split_open(next, &rest, usize::try_from(minor).ok()?)?;
            taken.push(major);
            left.push_front(minor);
            break;
        }
        Some(taken)
    }

    /// Axis `axis` replaced by axes of the sizes `shape`, at whose positions (row-major) stand the elements `picks` of it, a 0
    /// where that is a [`HOLE`].
    #[must_use]
    pub fn reindex(self, axis: usize, shape: &[usize], picks: &[i64]) -> Option<IndexMap> {
        let old = self.axes.get(axis)?;
        let count: usize = shape.iter().product();
        if count == 0 || count > LIMIT || picks.len() != count {
            return None;
        }
        if self.closed(old) {
            let n = self.size_of(old);
            let inside = |&p: &i64| p == HOLE || usize::try_from(p).is_ok_and(|p| p < n);
            if !picks.iter().all(inside) {
                return None;
            }
            if shape == [n] && picks.iter().enumerate().all(|(i, &p)| p == i as i64) {
                return Some(self);
            }
        }
        let mut index = IndexMap::empty();
        index.axes = shape.iter().map(|&n| index.digits_of(&[n])).collect();
        let extent = self.dim_of(old);
        index.tables.push(Table { digits: index.axes.concat(), values: picks.to_vec(), along: Vec::new(), extent });
        self.gather(axis, &index)
    }

    /// Axis `axis` replaced by the axes of `index`, whose only table says which position of it stands there. The caller has
    /// proved that these positions lie within the axis, or that what they stand for is a 0 outside of it.
    #[must_use]
    pub fn gather(mut self, axis: usize, index: &IndexMap) -> Option<IndexMap> {
        let old = self.axes.get(axis)?.clone();
        let [form] = index.tables.as_slice() else { return None };
        let mut number: BTreeMap<Digit, Digit> = BTreeMap::new();
        for d in index.axes.concat() {
            let new = *self.digits_of_dim(&index.dim_of(&[d]))?.first()?;
            number.insert(d, new);
        }
        let form = form.renumbered(&number)?;
        let own = |digits: &Vec<Digit>| digits.iter().map(|d| number.get(d).copied()).collect::<Option<Vec<_>>>();
        let parts: Vec<Vec<Digit>> = index.axes.iter().map(own).collect::<Option<_>>()?;
        self.replace(&old, &form)?;
        self.axes.splice(axis..=axis, parts);
        Some(self)
    }

    /// The axes broadcast to `shape`, from the back as ONNX does.
    #[must_use]
    pub fn broadcast(mut self, shape: &[Dim]) -> Option<IndexMap> {
        let missing = shape.len().checked_sub(self.rank())?;
        self.axes.splice(0..0, vec![Vec::new(); missing]);
        for (axis, n) in shape.iter().enumerate() {
            let own = self.dim_of(&self.axes[axis]);
            if own == Dim::fixed(1) {
                self.axes[axis] = self.digits_of_dim(n)?;
            } else if own.equals(n) != Some(true) {
                return None;
            }
        }
        Some(self)
    }

    /// Two maps of one shape side by side: the tables of the first, then those of the second, over the same digits.
    #[must_use]
    pub fn join(self, other: IndexMap) -> Option<IndexMap> {
        let mut maps = digits::align(vec![self, other])?;
        let second = maps.pop()?;
        let mut first = maps.pop()?;
        first.tables.extend(second.tables);
        Some(first)
    }

    /// Maps over the same sources, one behind the other along `axis`.
    #[must_use]
    pub fn concat(maps: Vec<IndexMap>, axis: usize) -> Option<IndexMap> {
        digits::concat(maps, axis)
    }

    /// Whether both are maps of the same elements to the same places.
    #[must_use]
    pub fn same(&self, other: &IndexMap) -> bool {
        if same_shape(&self.shape(), &other.shape()) != Some(true) {
            return false;
        }
        let tables = self.tables.len();
        match self.clone().join(other.clone()) {
            Some(both) if other.tables.len() == tables => both.tables[..tables] == both.tables[tables..],
            _ => false,
        }
    }
}
