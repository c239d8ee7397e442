//! Reading values as sums of weighed channels.

use std::collections::BTreeMap;

use convc_runtime::{Dim, Op, ops::softmax::SoftmaxKind, window::AutoPad};

use super::sums::{Axis, ONE, Product, Sums, broadcast, mean, product, regrouped, signed, without};
use crate::rewrite::{
    rules::read::{
        axes::{axis, listed},
        slice::bounds,
        transpose::order,
    },
    view::{App, Class, View},
};

/// How logits become weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Gate {
    /// Softmax; for each logit the group it is normalised in.
    Softmax(Vec<usize>),
    /// Sigmoid.
    Sigmoid,
}

/// Where weights come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Weights {
    /// The value with the logits as its channels.
    pub(super) logits: Class,
    /// The function.
    pub(super) gate: Gate,
    /// Whether they vary over space.
    pub(super) spatial: bool,
}

/// Reads values over one map and one value of logits.
pub(super) struct Reader<'a> {
    view: &'a dyn View,
    /// Whether sums and products are looked into; if not, whatever is no rearrangement is the map.
    arithmetic: bool,
    /// The map, once it was met.
    pub(super) map: Option<Class>,
    /// The weights, once they were met.
    pub(super) weights: Option<Weights>,
    /// Logits that vary over space in a way that is not read, if there were any.
    pub(super) spatial_logits: Option<Class>,
    known: BTreeMap<Class, Option<Sums>>,
}

impl<'a> Reader<'a> {
    /// A reader of sums and products over `map`, or over the first map that is met.
    pub(super) fn new(view: &'a dyn View, map: Option<Class>) -> Reader<'a> {
        Reader { view, arithmetic: true, map, weights: None, spatial_logits: None, known: BTreeMap::new() }
    }

    /// What `class` rearranges, and how.
    pub(super) fn rearranged(view: &'a dyn View, class: Class) -> Option<(Class, Sums)> {
        let mut reader = Reader { arithmetic: false, ..Reader::new(view, None) };
        let sums = reader.read(class)?;
        Some((reader.map?, sums))
    }

    fn shape(&self, class: Class) -> Option<&'a [Dim]> {
        Some(&self.view.fact(class)?.shape)
    }

    /// The value as sums of products.
    pub(super) fn read(&mut self, class: Class) -> Option<Sums> {
        if let Some(known) = self.known.get(&class) {
            return known.clone();
        }
        // Should a view be cyclic, the way round is no reading.
        self.known.insert(class, None);
        let sums = self.read_new(class);
        self.known.insert(class, sums.clone());
        sums
    }

    fn read_new(&mut self, class: Class) -> Option<Sums> {
        if self.view.is_constant(class) {
            return self.arithmetic.then(|| self.constant_one(class)).flatten();
        }
        let app = self.view.apps(class).into_iter().next();
        let Some(app) = app else { return if self.arithmetic { None } else { self.base(class) } };
        match app.op {
            Op::Identity(_) => self.read(app.operand(0)?),
            Op::Transpose(t) => {
                let x = self.read(app.operand(0)?)?;
                let rank = x.axes.len();
                let perm = order(t, rank)?;
                let axes = perm.iter().map(|&p| x.axes[p]).collect();
                Sums::make(axes, x.pooled, |at| {
                    let mut from = vec![0; rank];
                    perm.iter().zip(at).for_each(|(&p, &i)| from[p] = i);
                    x.get(&from).cloned()
                })
            }
            Op::Slice(_) | Op::Gather(_) => self.picked(&app),
            Op::Concat(c) => self.joined(&app, c.axis),
            _ if app.is_view() => {
                let x = app.operand(0)?;
                let (from, to) = (self.shape(x)?, self.shape(class)?);
                let x = self.read(x)?;
                let axes = regrouped(&x.axes, from, to)?;
                Some(Sums { axes, ..x })
            }
            _ if !self.arithmetic => self.base(class),
            _ => self.computed(class, &app),
        }
    }

    fn computed(&mut self, class: Class, app: &App<'_>) -> Option<Sums> {
        match app.op.name() {
            "Conv" | "Relu" => self.base(class),
            "Add" => self.sum(class, app, &[1, 1]),
            "Sub" => self.sum(class, app, &[1, -1]),
            "Sum" => self.sum(class, app, &vec![1; app.operands.len()]),
            "Mul" => {
                // Both are read, so that a caller can tell what one of them lacks.
                let (a, b) = (self.read(app.operand(0)?), self.read(app.operand(1)?));
                product(&a?, &b?)
            }
            "ReduceSum" => self.sum_along(class, app),
            "GlobalAveragePool" => {
                let x = self.read(app.operand(0)?)?;
                let space: Vec<usize> = (2..x.axes.len()).collect();
                mean(&x, &space, true)
            }
            "AveragePool" => {
                let Op::AveragePool(op) = app.op else { return None };
                let x = self.read(app.operand(0)?)?;
                let sizes = &self.shape(app.operand(0)?)?[2..];
                let whole = op.auto_pad == AutoPad::NotSet
                    && op.pads.iter().all(|&p| p == 0)
                    && sizes.iter().zip(&op.kernel_shape).all(|(d, &k)| d.as_fixed() == Some(k));
                let space: Vec<usize> = (2..x.axes.len()).collect();
                whole.then(|| mean(&x, &space, true))?
            }
            "ReduceMean" => {
                let x = self.read(app.operand(0)?)?;
                mean(&x, &self.reduced_axes(app, x.axes.len())?, keeps_dims(app))
            }
            "Sigmoid" => {
                let (logits, sums) = Reader::rearranged(self.view, app.operand(0)?)?;
                self.weights(logits, sums, |_| Some(Gate::Sigmoid))
            }
            "Softmax" => self.softmax(app),
            _ => None,
        }
    }

    /// A map whose channels are not looked into.
    fn base(&mut self, class: Class) -> Option<Sums> {
        let fact = self.view.fact(class)?;
        if !fact.dtype.is_float() || *self.map.get_or_insert(class) != class {
            return None;
        }
        let channels = usize::try_from(fact.shape.get(1)?.as_fixed()?).ok().filter(|&c| c > 0)?;
        let axis = |(i, d): (usize, &Dim)| match i {
            _ if d.as_fixed() == Some(1) => Axis::Unit,
            0 => Axis::Batch,
            1 => Axis::Channels(channels),
            _ => Axis::Space(i - 2, i - 1),
        };
        let axes = fact.shape.iter().enumerate().map(axis).collect();
        Sums::make(axes, false, |at| Some(vec![Product { channel: Some(at[1]), ..ONE }]))
    }

    /// A constant of ones that widens nothing.
    fn constant_one(&self, class: Class) -> Option<Sums> {
        let constant = self.view.constant(class)?;
        if constant.len() != 1 || constant.to_tensor().ok()?.to_f64s()? != [1.0] {
            return None;
        }
        Some(Sums { axes: vec![Axis::Unit; constant.shape().len()], at: vec![vec![ONE]], pooled: false })
    }

    /// A slice, or a gather with constant indices, along axes of channels.
    fn picked(&mut self, app: &App<'_>) -> Option<Sums> {
        let ints = |i: usize| self.view.fact(app.operand(i)?)?.i64s();
        let x = app.operand(0)?;
        let rank = self.shape(x)?.len();
        // For each axis that is cut, the positions taken.
        let mut taken: Vec<(usize, Vec<usize>)> = Vec::new();
        let mut gone = None;
        if let Op::Gather(g) = app.op {
            let axis = axis(g.axis, rank)?;
            let size = self.shape(x)?.get(axis)?.as_fixed()?;
            let indices = ints(1)?.into_iter().map(|i| usize::try_from(if i < 0 { i + size } else { i }).ok());
            taken.push((axis, indices.collect::<Option<_>>()?));
            match self.shape(app.operand(1)?)?.len() {
                0 => gone = Some(axis),
                1 => {}
                _ => return None,
            }
        } else {
            for (axis, cut) in bounds(self.view, app, rank)? {
                let size = self.shape(x)?.get(axis)?.as_fixed()?;
                let clamp = |v: i64| if v < 0 { v.saturating_add(size) } else { v }.clamp(0, size);
                let step = usize::try_from(cut.step).ok().filter(|&s| s > 0)?;
                let range = usize::try_from(clamp(cut.start)).ok()?..usize::try_from(clamp(cut.end)).ok()?;
                taken.push((axis, range.step_by(step).collect()));
            }
        }
        let x = self.read(x)?;
        let mut axes = x.axes.clone();
        for (axis, positions) in &taken {
            match axes[*axis] {
                Axis::Channels(n) if positions.iter().all(|&p| p < n) && !positions.is_empty() => {
                    axes[*axis] = if positions.len() == 1 { Axis::Unit } else { Axis::Channels(positions.len()) };
                }
                Axis::Unit if *positions == [0] => {}
                _ => return None,
            }
        }
        let mut sums = Sums::make(axes, x.pooled, |at| {
            let mut from = at.to_vec();
            taken.iter().for_each(|(axis, positions)| from[*axis] = positions[at[*axis]]);
            x.get(&from).cloned()
        })?;
        if let Some(axis) = gone {
            // A single index leaves no axis; what is left of it is one position.
            (sums.axes[axis] == Axis::Unit).then(|| sums.axes.remove(axis))?;
        }
        Some(sums)
    }

    /// A concatenation along an axis of channels.
    fn joined(&mut self, app: &App<'_>, named: i64) -> Option<Sums> {
        let parts = app.operands.iter().map(|o| self.read((*o)?)).collect::<Option<Vec<Sums>>>()?;
        let first = parts.first()?;
        let axis = axis(named, first.axes.len())?;
        let size = |s: &Sums| match s.axes.get(axis) {
            Some(Axis::Channels(n)) => Some(*n),
            Some(Axis::Unit) => Some(1),
            _ => None,
        };
        let mut begins = Vec::new();
        let mut total = 0;
        for p in &parts {
            let elsewhere =
                |s: &Sums| s.axes.iter().enumerate().filter(|(i, _)| *i != axis).map(|(_, a)| *a).collect::<Vec<_>>();
            if elsewhere(p) != elsewhere(first) || p.axes.len() != first.axes.len() || p.pooled != first.pooled {
                return None;
            }
            begins.push(total);
            total += size(p)?;
        }
        let mut axes = first.axes.clone();
        axes[axis] = if total == 1 { Axis::Unit } else { Axis::Channels(total) };
        Sums::make(axes, first.pooled, |at| {
            let part = begins.iter().rposition(|&b| b <= at[axis])?;
            let mut from = at.to_vec();
            from[axis] -= begins[part];
            parts[part].get(&from).cloned()
        })
    }

    fn sum(&mut self, class: Class, app: &App<'_>, signs: &[i64]) -> Option<Sums> {
        let rank = self.shape(class)?.len();
        let mut total: Option<Sums> = None;
        for (operand, sign) in app.operands.iter().zip(signs) {
            let x = self.read((*operand)?)?;
            let x = Sums { at: x.at.into_iter().map(|s| signed(s, *sign)).collect(), ..x };
            total = Some(match total {
                None => x,
                Some(t) => broadcast(&t, &x, |a, b| Some([a, b].concat()))?,
            });
        }
        total.filter(|t| t.axes.len() == rank)
    }

    fn reduced_axes(&self, app: &App<'_>, rank: usize) -> Option<Vec<usize>> {
        match app.operand(1) {
            None => Some((0..rank).collect()),
            Some(a) => listed(self.view, a, rank),
        }
    }

    fn sum_along(&mut self, class: Class, app: &App<'_>) -> Option<Sums> {
        let x = self.read(app.operand(0)?)?;
        let rank = x.axes.len();
        let reduced = self.reduced_axes(app, rank)?;
        // An empty list means all axes, or none.
        if reduced.is_empty() || reduced.iter().any(|&a| matches!(x.axes[a], Axis::Batch | Axis::Space(..))) {
            return None;
        }
        let mut axes = x.axes.clone();
        reduced.iter().for_each(|&a| axes[a] = Axis::Unit);
        let sizes = x.sizes();
        let mut sums = Sums::make(axes, x.pooled, |at| {
            let mut out = Vec::new();
            let inner: Vec<Axis> = (0..rank)
                .map(|a| if reduced.contains(&a) && sizes[a] > 1 { Axis::Channels(sizes[a]) } else { Axis::Unit })
                .collect();
            Sums::make(inner, false, |offset| {
                let from: Vec<usize> = at.iter().zip(offset).map(|(a, o)| a + o).collect();
                out.extend(x.get(&from)?.iter().copied());
                Some(Vec::new())
            })?;
            Some(out)
        })?;
        if !keeps_dims(app) {
            sums.axes = without(&sums.axes, &reduced);
        }
        (sums.axes.len() == self.shape(class)?.len()).then_some(sums)
    }

    /// The weights that a function of logits gives.
    fn weights(&mut self, logits: Class, sums: Sums, gate: impl FnOnce(&Sums) -> Option<Gate>) -> Option<Sums> {
        let weights = Weights { logits, gate: gate(&sums)?, spatial: !sums.is_flat() };
        if *self.weights.get_or_insert_with(|| weights.clone()) != weights {
            return None;
        }
        let weigh = |s: Vec<Product>| match s.as_slice() {
            [Product { sign: 1, channel, weight: None }] => Some(vec![Product { weight: *channel, ..ONE }]),
            _ => None,
        };
        Some(Sums { at: sums.at.into_iter().map(weigh).collect::<Option<_>>()?, axes: sums.axes, pooled: false })
    }

    fn softmax(&mut self, app: &App<'_>) -> Option<Sums> {
        let Op::Softmax(op) = app.op else { return None };
        if op.kind != SoftmaxKind::Softmax {
            return None;
        }
        let x = app.operand(0)?;
        let Some((logits, sums)) = Reader::rearranged(self.view, x) else {
            self.spatial_logits = self.spatial_logits.or_else(|| spatial_source(self.view, x));
            return None;
        };
        let axis = axis(op.axis, sums.axes.len())?;
        let Axis::Channels(size) = sums.axes[axis] else { return None };
        if op.flatten && sums.axes[axis + 1..].iter().any(|a| *a != Axis::Unit) {
            return None;
        }
        let total = self.shape(logits)?.get(1)?.as_fixed().and_then(|n| usize::try_from(n).ok())?;
        self.weights(logits, sums, |sums| {
            let inner: usize = sums.sizes()[axis + 1..].iter().product();
            let mut group = vec![usize::MAX; total];
            for (i, s) in sums.at.iter().enumerate() {
                let logit = s.first()?.channel?;
                // Positions that differ along the axis only are normalised together.
                *group.get_mut(logit)? = i / (inner * size) * inner + i % inner;
            }
            Some(Gate::Softmax(group))
        })
    }
}

/// The value that views of `class` show, if it is larger than one number per channel.
fn spatial_source(view: &dyn View, mut class: Class) -> Option<Class> {
    for _ in 0..16 {
        match view.apps(class).into_iter().next() {
            Some(app) if app.is_view() || matches!(app.op, Op::Transpose(_)) => {
                class = app.operand(0)?;
            }
            _ => break,
        }
    }
    let shape = &view.fact(class)?.shape;
    (shape.len() > 2 && shape[2..].iter().any(|d| d.as_fixed() != Some(1))).then_some(class)
}

fn keeps_dims(app: &App<'_>) -> bool {
    matches!(app.op, Op::Reduce(r) if r.keepdims)
}
