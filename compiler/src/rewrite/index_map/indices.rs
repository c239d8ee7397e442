//! Tensors of indices: integers that are affine in the positions along open axes.
//!
//! They are index maps with one table, whose coordinate is the integer itself; no integer is a hole, and the extent means
//! nothing. What a model computes of them in another way is not known, and no rule fires on it: a minimum or a choice may turn
//! at some size, and so may a quotient, unless it divides every step along the open axes.

use std::collections::BTreeSet;

use convc_runtime::{
    DType, Dim, Op, Real, Tensor,
    ops::{RunCx, binary::BinaryKind, unary::UnaryKind},
    sys::Pool,
};

use super::{
    Digit, HOLE, IndexMap, LIMIT, Table,
    chain::may_move,
    digits::add_along,
    sizes::Sized,
    step::{axis_of, step},
};
use crate::rewrite::view::{App, Class, same_shape};

/// Operators nested in the arithmetic of indices at most.
const DEPTH: usize = 64;

impl IndexMap {
    /// The tensor of these integers.
    fn of_integers(shape: &[usize], values: Vec<i64>) -> Option<IndexMap> {
        let sizes: Vec<Dim> = shape.iter().map(|&n| Dim::from(n)).collect();
        let mut map = IndexMap::identity(&sizes)?;
        // A hole is no integer.
        if values.contains(&HOLE) || values.len() > LIMIT {
            return None;
        }
        map.tables = vec![Table { digits: map.axes.concat(), values, along: Vec::new(), extent: Dim::fixed(0) }];
        map.simplify();
        Some(map)
    }

    /// The only table of a tensor of indices.
    fn form(&self) -> Option<&Table> {
        self.tables.first().filter(|_| self.tables.len() == 1)
    }

    /// The integers that come of these by a function of the values and one of the steps along open axes.
    fn mapped(mut self, values: impl Fn(i64) -> Option<i64>, strides: impl Fn(i64) -> Option<i64>) -> Option<IndexMap> {
        let table = self.tables.first_mut()?;
        table.values = table.values.iter().map(|&v| values(v)).collect::<Option<_>>()?;
        table.along = table.along.iter().map(|&(d, s)| Some((d, strides(s)?))).collect::<Option<Vec<_>>>()?;
        table.along.retain(|(_, s)| *s != 0);
        (!table.values.contains(&HOLE)).then_some(self)
    }

    /// The integers as positions along an axis of `n`, none of them negative: counted from behind where an axis of fixed size is
    /// indexed by numbers that are. `None` unless all lie within the axis for all sizes.
    #[must_use]
    pub fn within(self, n: &Dim) -> Option<IndexMap> {
        let form = self.form()?;
        let map = match n.as_fixed().filter(|_| form.along.is_empty()) {
            Some(n) => self.mapped(|v| if v < 0 { v.checked_add(n) } else { Some(v) }, Some)?,
            None => self,
        };
        let form = map.form()?;
        let (least, most) = (*form.values.iter().min()?, *form.values.iter().max()?);
        let (mut low, mut high) = (Dim::from(least), Dim::from(most));
        for (d, stride) in &form.along {
            let last = (map.dim_of(&[*d]) - 1) * Dim::from(*stride);
            if *stride < 0 { low = low + last } else { high = high + last }
        }
        let inside = low.at_least(0) == Some(true) && (n - &high).at_least(1) == Some(true);
        inside.then_some(map)
    }
}

impl Sized<'_> {
    /// A tensor of indices, if its elements are affine for all sizes.
    #[must_use]
    pub fn index(&self, class: Class) -> Option<IndexMap> {
        self.index_within(class, DEPTH)
    }

    fn index_within(&self, class: Class, depth: usize) -> Option<IndexMap> {
        if let Some(known) = self.indices.borrow().get(&class) {
            return known.clone();
        }
        let index = self.make_index(class, depth);
        self.indices.borrow_mut().insert(class, index.clone());
        index
    }

    fn make_index(&self, class: Class, depth: usize) -> Option<IndexMap> {
        let fact = self.view.fact(class)?;
        if !matches!(fact.dtype, DType::I64 | DType::I32) {
            return None;
        }
        if let Some(c) = self.view.constant(class) {
            return IndexMap::of_integers(c.shape(), c.to_tensor().ok()?.to_i64s()?);
        }
        if let (Some(shape), Some(values)) = (fact.fixed_shape(), fact.i64s()) {
            return IndexMap::of_integers(&shape, values);
        }
        let shape = self.shape(class);
        let depth = depth.checked_sub(1)?;
        let found = self.view.apps(class).into_iter().find_map(|app| {
            let operand = |i: usize| self.index_within(app.operand(i)?, depth);
            match app.op {
                Op::Range(_) => range(&operand(0)?, &operand(2)?, shape.as_deref()?),
                Op::Cast(c) if c.to == DType::I64 => operand(0),
                Op::Unary(u) if u.kind == UnaryKind::Neg => operand(0)?.mapped(i64::checked_neg, i64::checked_neg),
                Op::Binary(b) => arithmetic(b.kind, operand(0)?, operand(1)?, shape.as_deref()?),
                Op::Mod(m) if !m.fmod => remainder(operand(0)?, number(&operand(1)?)?),
                Op::Concat(c) => {
                    let parts: Vec<IndexMap> = (0..app.operands.len()).map(operand).collect::<Option<_>>()?;
                    let axis = axis_of(c.axis, parts.first()?.rank())?;
                    IndexMap::concat(parts, axis)
                }
                Op::Pad(_) | Op::Conv(_) => None,
                op if may_move(op) => step(self, &app, shape.as_deref()?, operand(0)?),
                _ => None,
            }
            .or_else(|| self.evaluated(&app, depth))
        })?;
        let fits = shape.is_none_or(|s| same_shape(&s, &found.shape()) == Some(true));
        fits.then_some(found)
    }

    /// An operator on numbers alone.
    fn evaluated(&self, app: &App<'_>, depth: usize) -> Option<IndexMap> {
        let tensor = |c: Class| -> Option<Tensor> {
            let fact = self.view.fact(c)?;
            if let Some(c) = self.view.constant(c) {
                return c.to_tensor().ok();
            }
            let index = self.index_within(c, depth)?;
            let values = index.over(index.form()?, &index.axes.concat())?;
            let shape = index.fixed_shape()?;
            match fact.dtype {
                DType::I64 => Tensor::new(shape, values).ok(),
                DType::I32 => {
                    let narrow = values.into_iter().map(|v| i32::try_from(v).ok()).collect::<Option<Vec<_>>>()?;
                    Tensor::new(shape, narrow).ok()
                }
                _ => None,
            }
        };
        if app.operands.is_empty() {
            return None;
        }
        let operands: Vec<Option<Tensor>> =
            app.operands.iter().map(|o| o.map_or(Some(None), |o| tensor(o).map(Some))).collect::<Option<_>>()?;
        let operands: Vec<Option<&Tensor>> = operands.iter().map(Option::as_ref).collect();
        let pool = Pool::new(1);
        let cx = RunCx { max_elements: LIMIT, ..RunCx::new(Real::Native, &pool) };
        let result = app.op.run(&operands, &cx).ok()?.into_iter().next()?;
        IndexMap::of_integers(result.shape(), result.to_i64s()?)
    }
}

/// The one number that a tensor of indices consists of.
fn number(index: &IndexMap) -> Option<i64> {
    let form = index.form().filter(|f| f.along.is_empty())?;
    match form.values.as_slice() {
        [v] => Some(*v),
        _ => None,
    }
}

/// `start + delta * i`, as many as the shape says.
fn range(start: &IndexMap, delta: &IndexMap, shape: &[Dim]) -> Option<IndexMap> {
    let (start, delta) = (number(start)?, number(delta)?);
    let map = IndexMap::identity(shape)?;
    map.mapped(|v| v.checked_mul(delta)?.checked_add(start), |s| s.checked_mul(delta))
}

fn arithmetic(kind: BinaryKind, a: IndexMap, b: IndexMap, shape: &[Dim]) -> Option<IndexMap> {
    match kind {
        BinaryKind::Add | BinaryKind::Sub => {
            let sign = if kind == BinaryKind::Add { 1 } else { -1 };
            let mut both = a.broadcast(shape)?.join(b.broadcast(shape)?)?;
            let [x, y] = both.tables.as_slice() else { return None };
            let digits: BTreeSet<Digit> = x.digits.iter().chain(&y.digits).copied().collect();
            let digits: Vec<Digit> = digits.into_iter().collect();
            let sum = |(x, y): (i64, i64)| x.checked_add(y.checked_mul(sign)?);
            let values = both.listed(x, &digits)?.into_iter().zip(both.listed(y, &digits)?);
            let values: Vec<i64> = values.map(sum).collect::<Option<_>>()?;
            let along = add_along(&x.along, &y.along, sign)?;
            both.tables = vec![Table { digits, values, along, extent: Dim::fixed(0) }];
            both.simplify();
            both.mapped(Some, Some)
        }
        BinaryKind::Mul => {
            let (index, factor) = match (number(&a), number(&b)) {
                (_, Some(n)) => (a, n),
                (Some(n), None) => (b, n),
                (None, None) => return None,
            };
            index.mapped(|v| v.checked_mul(factor), |s| s.checked_mul(factor))?.broadcast(shape)
        }
        BinaryKind::Div => {
            let by = number(&b).filter(|by| *by > 0)?;
            divisible(&a, by)?;
            a.mapped(|v| v.checked_div(by), |s| s.checked_div(by))?.broadcast(shape)
        }
        _ => None,
    }
}

/// `index mod by`, which does not depend on the open axes if `by` divides each step along them.
fn remainder(index: IndexMap, by: i64) -> Option<IndexMap> {
    divisible(&index, by)?;
    // The steps are multiples of it.
    index.mapped(|v| v.checked_rem_euclid(by), |_| Some(0))
}

/// Whether a positive number divides each step along the open axes of integers that are not negative. Sums and products that
/// wrap around are right where the result fits, but not where they are divided: the numbers must be small.
fn divisible(index: &IndexMap, by: i64) -> Option<()> {
    let form = index.form()?;
    let small = |v: i64| (0..=i64::from(i16::MAX)).contains(&v);
    let steps = form.along.iter().all(|(_, s)| small(*s) && s.checked_rem(by) == Some(0));
    (by > 0 && steps && form.values.iter().all(|v| small(*v))).then_some(())
}
