//! Shapes and small lists of integers, as expressions over the symbols that a question is about.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use convc_runtime::{Dim, Symbol};

use super::IndexMap;
use crate::rewrite::view::{Class, View};

/// A view whose sizes are expressions over the symbols of a few classes.
pub struct Sized<'a> {
    /// The view.
    pub view: &'a dyn View,
    /// The symbols that have a meaning here.
    symbols: BTreeSet<Symbol>,
    /// What is put in the place of symbols.
    values: BTreeMap<Symbol, Dim>,
    /// Tensors of indices that were asked for.
    pub(super) indices: RefCell<BTreeMap<Class, Option<IndexMap>>>,
}

impl<'a> Sized<'a> {
    /// A view in whose sizes the symbols of these classes' shapes stand.
    #[must_use]
    pub fn new(view: &'a dyn View, classes: &[Class]) -> Sized<'a> {
        Sized::at_multiples(view, classes, &BTreeSet::new(), 1)
    }

    /// The same where some symbols are multiples of a number: each stands for `factor` times itself.
    #[must_use]
    pub fn at_multiples(view: &'a dyn View, classes: &[Class], multiples: &BTreeSet<Symbol>, factor: i64) -> Sized<'a> {
        let shapes = classes.iter().filter_map(|c| view.fact(*c)).flat_map(|f| &f.shape);
        let symbols = shapes.flat_map(Dim::symbols).collect();
        let values = multiples.iter().map(|s| (s.clone(), Dim::symbol(s.clone()) * factor)).collect();
        Sized { view, symbols, values, indices: RefCell::default() }
    }

    /// The size as it stands here; `None` if it depends on another symbol or has no value.
    fn size(&self, dim: &Dim) -> Option<Dim> {
        let known = dim.symbols().iter().all(|s| self.symbols.contains(s)) && !dim.is_overflow();
        let size = if self.values.is_empty() { dim.clone() } else { dim.substitute(&self.values) };
        (known && !size.is_overflow()).then_some(size)
    }

    /// The shape of a class.
    #[must_use]
    pub fn shape(&self, class: Class) -> Option<Vec<Dim>> {
        self.view.fact(class)?.shape.iter().map(|d| self.size(d)).collect()
    }

    /// The integers of a class, which is small, as expressions.
    #[must_use]
    pub fn dims(&self, class: Class) -> Option<Vec<Dim>> {
        if let Some(c) = self.view.constant(class) {
            return Some(c.to_tensor().ok()?.to_i64s()?.into_iter().map(Dim::from).collect());
        }
        if let Some(dims) = self.view.fact(class).and_then(|f| f.dims()) {
            return dims.iter().map(|d| self.size(d)).collect();
        }
        let index = self.index(class)?;
        let table = index.tables.first().filter(|t| t.along.is_empty() && index.open.is_empty())?;
        Some(index.over(table, &index.axes.concat())?.into_iter().map(Dim::from).collect())
    }

    /// The integers of a class, if they are numbers.
    #[must_use]
    pub fn ints(&self, class: Class) -> Option<Vec<i64>> {
        self.dims(class)?.iter().map(Dim::as_fixed).collect()
    }
}
