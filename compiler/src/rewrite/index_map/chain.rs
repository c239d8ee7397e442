//! The index map of a value over one that it is made of by movement alone.

use std::collections::BTreeMap;

use convc_runtime::{Dim, Op, ops::pad::PadMode, window::AutoPad};

use super::{
    IndexMap,
    sizes::Sized,
    step::{axes_of, axis_of, step},
    unfold::one_hot,
};
use crate::rewrite::view::{App, Class, Expr, View, same_shape};

/// Operators nested in a chain at most.
const DEPTH: usize = 48;

/// Whether an operator may only move elements of its first operand (of all, for Concat).
#[must_use]
pub fn may_move(op: &Op) -> bool {
    match op {
        Op::Pad(p) => p.mode == PadMode::Constant,
        Op::Conv(c) => c.auto_pad == AutoPad::NotSet,
        Op::Identity(_)
        | Op::Reshape(_)
        | Op::Flatten(_)
        | Op::Squeeze(_)
        | Op::Unsqueeze(_)
        | Op::Transpose(_)
        | Op::Expand(_)
        | Op::Tile(_)
        | Op::Slice(_)
        | Op::Gather(_)
        | Op::GatherND(_)
        | Op::DepthToSpace(_)
        | Op::SpaceToDepth(_)
        | Op::Concat(_) => true,
        _ => false,
    }
}

/// The application in a class that moves elements, if there is one.
#[must_use]
pub fn movement<'v>(view: &'v dyn View, class: Class) -> Option<App<'v>> {
    if view.is_constant(class) {
        return None;
    }
    view.apps(class).into_iter().find(|app| {
        may_move(app.op)
            && match app.op {
                Op::Conv(_) => one_hot(view, app).is_some(),
                Op::Concat(_) => true,
                _ => app.operand(0).is_some_and(|x| !view.is_constant(x)),
            }
    })
}

/// The classes that all elements of `class` may be taken from, itself first, each made of the next ones by movement.
#[must_use]
pub fn sources(view: &dyn View, class: Class) -> Vec<Class> {
    fn go(view: &dyn View, class: Class, depth: usize, known: &mut BTreeMap<Class, Vec<Class>>) -> Vec<Class> {
        if let Some(found) = known.get(&class) {
            return found.clone();
        }
        let mut out = vec![class];
        if let Some(app) = movement(view, class).filter(|_| depth > 0) {
            let operands: &[Option<Class>] =
                if matches!(app.op, Op::Concat(_)) { &app.operands } else { app.operands.get(..1).unwrap_or_default() };
            let mut each = operands.iter().flatten().map(|o| go(view, *o, depth - 1, known));
            if let Some(first) = each.next() {
                let common = each.fold(first, |common, more| common.into_iter().filter(|c| more.contains(c)).collect());
                out.extend(common.into_iter().filter(|c| *c != class));
            }
        }
        known.insert(class, out.clone());
        out
    }
    go(view, class, DEPTH, &mut BTreeMap::new())
}

/// The term of a class down to `source`, every operator of the chain spelled out.
#[must_use]
pub fn spell(view: &dyn View, class: Class, source: Class) -> Expr {
    fn go(view: &dyn View, class: Class, source: Class, depth: usize) -> Expr {
        let app = movement(view, class).filter(|_| class != source && depth > 0);
        let Some(app) = app else { return Expr::Class(class) };
        let all = matches!(app.op, Op::Concat(_));
        let operands = app
            .operands
            .iter()
            .enumerate()
            .map(|(i, o)| o.map(|o| if all || i == 0 { go(view, o, source, depth - 1) } else { Expr::Class(o) }));
        Expr::op(app.op.clone(), operands.collect())
    }
    go(view, class, source, DEPTH)
}

/// Makes the maps of classes over one source, for all values of the symbols at once.
pub struct Chains<'a, 's> {
    at: &'s Sized<'a>,
    source: Class,
    known: BTreeMap<Class, Option<IndexMap>>,
    /// Bounds of slices, and distances between them, that the maps take not to be negative: inference cannot tell, and leaves
    /// such a slice's size open or clamps it.
    pub assumed: Vec<Dim>,
}

impl<'a, 's> Chains<'a, 's> {
    /// Maps over `source` at these sizes.
    #[must_use]
    pub fn new(at: &'s Sized<'a>, source: Class) -> Chains<'a, 's> {
        Chains { at, source, known: BTreeMap::new(), assumed: Vec::new() }
    }

    /// The map of a class, if it is made of the source by movement that is understood.
    pub fn map(&mut self, class: Class) -> Option<IndexMap> {
        self.map_within(class, DEPTH)
    }

    fn map_within(&mut self, class: Class, depth: usize) -> Option<IndexMap> {
        if let Some(known) = self.known.get(&class) {
            return known.clone();
        }
        let map = self.make(class, depth);
        self.known.insert(class, map.clone());
        map
    }

    fn make(&mut self, class: Class, depth: usize) -> Option<IndexMap> {
        let known = self.at.shape(class);
        if class == self.source {
            return IndexMap::identity(&known?);
        }
        // What inference clamps is one expression where the map is not empty, and another one where it is.
        let shape = known.clone().filter(|s| !s.iter().any(Dim::has_extremum));
        let depth = depth.checked_sub(1)?;
        let app = movement(self.at.view, class)?;
        let map = match app.op {
            Op::Concat(c) => {
                let parts: Vec<IndexMap> =
                    app.operands.iter().map(|o| self.map_within((*o)?, depth)).collect::<Option<_>>()?;
                let axis = axis_of(c.axis, parts.first()?.rank())?;
                IndexMap::concat(parts, axis)?
            }
            _ => {
                let from = if shape.is_some() { self.behind_views(&app)? } else { app.operand(0)? };
                let x = self.map_within(from, depth)?;
                let shape = match &shape {
                    Some(s) => s.clone(),
                    None => self.open_shape(&app, &x).or(known)?,
                };
                step(self.at, &app, &shape, x)?
            }
        };
        shape.is_none_or(|s| same_shape(&map.shape(), &s) == Some(true)).then_some(map)
    }

    /// What an operator moves the elements of: for a view of views, what the innermost one is a view of, since the shapes between
    /// need not cut the same digits.
    fn behind_views(&self, app: &App<'_>) -> Option<Class> {
        let is_view = |op: &Op| {
            matches!(op, Op::Reshape(_) | Op::Flatten(_) | Op::Squeeze(_) | Op::Unsqueeze(_) | Op::Identity(_))
        };
        let mut below = app.operand(0)?;
        if !is_view(app.op) {
            return Some(below);
        }
        for _ in 0..DEPTH {
            let inner = movement(self.at.view, below).filter(|inner| below != self.source && is_view(inner.op));
            let Some(next) = inner.and_then(|inner| inner.operand(0)) else { break };
            below = next;
        }
        Some(below)
    }

    /// The shape of a slice whose bounds may be negative or cross for all that is known, and of what is made of one.
    fn open_shape(&mut self, app: &App<'_>, x: &IndexMap) -> Option<Vec<Dim>> {
        let shape = x.shape();
        match app.op {
            Op::Slice(_) => self.assume_bounds(app, shape),
            Op::Transpose(t) => {
                let order = t.order(shape.len()).ok()?;
                order.iter().map(|&a| shape.get(a).cloned()).collect()
            }
            Op::Unsqueeze(_) => {
                let mut shape = shape;
                let axes = self.at.ints(app.operand(1)?)?;
                let rank = shape.len() + axes.len();
                let mut axes: Vec<usize> = axes.into_iter().map(|a| axis_of(a, rank)).collect::<Option<_>>()?;
                axes.sort_unstable();
                axes.into_iter().for_each(|a| shape.insert(a.min(shape.len()), Dim::fixed(1)));
                Some(shape)
            }
            _ => None,
        }
    }

    /// The shape of a slice whose bounds are taken for positions from the front, none of them beyond the end.
    fn assume_bounds(&mut self, app: &App<'_>, mut shape: Vec<Dim>) -> Option<Vec<Dim>> {
        let (starts, ends) = (self.at.dims(app.operand(1)?)?, self.at.dims(app.operand(2)?)?);
        let axes = match app.operand(3) {
            Some(c) => Some(self.at.ints(c)?),
            None => None,
        };
        let steps = match app.operand(4) {
            Some(c) => self.at.ints(c)?,
            None => vec![1; starts.len()],
        };
        if steps.len() != starts.len() || steps.iter().any(|s| *s <= 0) {
            return None;
        }
        let of = shape.clone();
        for (i, axis) in axes_of(axes, starts.len(), of.len())?.into_iter().enumerate() {
            let (start, end) = (&starts[i], ends.get(i)?);
            let within = [start, end].into_iter().all(|d| (&of[axis] - d).at_least(0) == Some(true));
            let fixed = [start, end].into_iter().all(|d| d.as_fixed().is_none_or(|d| d >= 0));
            if !within || !fixed {
                return None;
            }
            let count = end - start;
            let unproved = |d: &&Dim| d.at_least(0) != Some(true);
            self.assumed.extend([start, end, &count].into_iter().filter(unproved).cloned());
            shape[axis] = count.ceil_div(&Dim::fixed(steps[i]));
        }
        Some(shape)
    }
}
