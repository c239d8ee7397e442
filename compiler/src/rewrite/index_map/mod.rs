//! [`IndexMap`]: which element of its sources each element of a tensor is, for chains of operators that only move data.
//!
//! The axes of the result are lists of *digits* (mixed radix, the major one first), and each axis of a source has a
//! [`Table`]: its coordinate as a function of the few digits it depends on, -1 where the element is a 0 of padding. Splitting
//! and merging of digits is what reshapes do, so the map of an unfolded map of `C*H*W` elements and `T` taps has tables of
//! `C`, `H*kh` and `W*kw` entries and never one of `C*H*W*T`.
//!
//! [`chain`] makes the map of a value over one of those it is made of, [`sizes`] the sizes at which that is done.
//!
//! # What a map proves
//! With fixed sizes a map is exact: every entry is computed by the operators' own definitions. With symbols it is made at
//! several choices of sizes, and a rule that reads something off it requires the same reading at all of them *and* that the
//! shapes are equal as expressions. That is a proof under one assumption: that the indices of the model are
//! polynomials of low degree in the sizes and in positions, or quotients of them by small numbers. [`sizes`] sees to that by
//! refusing symbolic indices that are made by anything but `+ - * /`, remainders, ranges and movement, and quotients by numbers
//! that the tried sizes do not reach.

pub mod chain;
mod digits;
pub mod sizes;

#[cfg(test)]
mod tests;

/// A digit of an [`IndexMap`], by its number.
pub type Digit = usize;

/// Entries that one table may have.
const LIMIT: usize = 1 << 21;

/// A coordinate as a function of digits, row-major; -1 where there is no source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The digits it depends on.
    pub digits: Vec<Digit>,
    /// One value for each choice of them.
    pub values: Vec<i64>,
}

/// Where the elements of a tensor come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexMap {
    /// The sizes of the digits.
    pub sizes: Vec<usize>,
    /// The digits of each axis, the major one first; none for a size of 1.
    pub axes: Vec<Vec<Digit>>,
    /// The coordinate along each axis of the source (of the sources, one behind the other). An element is 0 if any is -1.
    pub tables: Vec<Table>,
}

impl IndexMap {
    /// The map of a tensor over itself; `None` if it is empty or too large along an axis.
    #[must_use]
    pub fn identity(shape: &[usize]) -> Option<IndexMap> {
        let mut map = IndexMap { sizes: Vec::new(), axes: Vec::new(), tables: Vec::new() };
        for &n in shape {
            if n == 0 || n > LIMIT {
                return None;
            }
            let digits = map.digits_of(&[n]);
            map.tables.push(Table { digits: digits.clone(), values: (0..n as i64).collect() });
            map.axes.push(digits);
        }
        Some(map)
    }

    /// The shape of the result.
    #[must_use]
    pub fn shape(&self) -> Vec<usize> {
        self.axes.iter().map(|digits| self.size_of(digits)).collect()
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

    /// The elements in the same order under another shape.
    #[must_use]
    pub fn reshape(mut self, shape: &[usize]) -> Option<IndexMap> {
        if shape.contains(&0) || shape.iter().product::<usize>() != self.shape().iter().product::<usize>() {
            return None;
        }
        let mut left: std::collections::VecDeque<Digit> = self.axes.concat().into();
        self.axes.clear();
        for &n in shape {
            let mut taken: Vec<Digit> = Vec::new();
            loop {
                let so_far = self.size_of(&taken);
                if so_far == n {
                    break;
                }
                let next = left.pop_front()?;
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
                        merged.push(left.pop_front()?);
                    }
                    let whole = self.merge(&merged)?;
                    let (major, minor) = self.split(whole, n)?;
                    taken = vec![major];
                    left.push_front(minor);
                }
            }
            self.axes.push(taken);
        }
        // A size of 1 at the end leaves nothing; anything else was used up.
        left.is_empty().then_some(self)
    }

    /// Axis `axis` replaced by axes of the sizes `shape`, at whose positions (row-major) stand the elements `picks` of it, a 0
    /// where that is -1.
    #[must_use]
    pub fn reindex(mut self, axis: usize, shape: &[usize], picks: &[i64]) -> Option<IndexMap> {
        let old = self.axes.get(axis)?.clone();
        let n = self.size_of(&old);
        let count: usize = shape.iter().product();
        let inside = |&p: &i64| p == -1 || usize::try_from(p).is_ok_and(|p| p < n);
        if count == 0 || count > LIMIT || picks.len() != count || !picks.iter().all(inside) {
            return None;
        }
        if shape == [n] && picks.iter().enumerate().all(|(i, &p)| p == i as i64) {
            return Some(self);
        }
        let parts: Vec<Vec<Digit>> = shape.iter().map(|&n| self.digits_of(&[n])).collect();
        let new = parts.concat();
        self.replace(&old, &new, picks)?;
        self.axes.splice(axis..=axis, parts);
        Some(self)
    }

    /// The axes broadcast to `shape`, from the back as ONNX does.
    #[must_use]
    pub fn broadcast(mut self, shape: &[usize]) -> Option<IndexMap> {
        let missing = shape.len().checked_sub(self.rank())?;
        self.axes.splice(0..0, vec![Vec::new(); missing]);
        for (axis, &n) in shape.iter().enumerate() {
            match self.size_of(&self.axes[axis]) {
                m if m == n => {}
                1 if n > 0 => self.axes[axis] = self.digits_of(&[n]),
                _ => return None,
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
        if self.shape() != other.shape() {
            return false;
        }
        let tables = self.tables.len();
        match self.clone().join(other.clone()) {
            Some(both) if other.tables.len() == tables => both.tables[..tables] == both.tables[tables..],
            _ => false,
        }
    }
}
