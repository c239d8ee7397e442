//! The sizes at which a map is read, and the map there.

use std::collections::{BTreeMap, BTreeSet};

use convc_runtime::{Bindings, Dim, Symbol};

use super::{Digit, HOLE, IndexMap, LIMIT, Table, digits::offsets};

/// How often sizes are doubled until all open digits are large enough.
const MOST_DOUBLINGS: u32 = 12;

/// What is added to the scaled least size, for the first symbol and for each further one: several choices.
const SPREAD: [(i64, i64); 3] = [(2, 3), (7, 2), (12, 5)];

/// The largest number in a form for which sizes beyond it are tried.
const LARGEST: i64 = 1 << 12;

impl IndexMap {
    /// The map at chosen values of the symbols: all digits closed, [`HOLE`]s and what lies outside of its extent as -1. `None` if
    /// an open digit has fewer than 2 positions there, which is none to tell a stride by.
    #[must_use]
    pub fn at(&self, bindings: &Bindings) -> Option<IndexMap> {
        let mut sizes = self.sizes.clone();
        for (digit, size) in &self.open {
            sizes[*digit] = usize::try_from(size.eval(bindings).ok()?).ok().filter(|n| (2..=LIMIT).contains(n))?;
        }
        let mut out = IndexMap { sizes, open: BTreeMap::new(), axes: self.axes.clone(), tables: Vec::new() };
        for table in &self.tables {
            let extent = table.extent.eval(bindings).ok()?;
            let open: Vec<(usize, usize)> = table.along.iter().map(|(d, _)| (out.sizes[*d], 0)).collect();
            let count = offsets(&open)?.len();
            if table.values.len().checked_mul(count).is_none_or(|n| n > LIMIT) {
                return None;
            }
            // What the open digits add, row-major over them.
            let mut steps = vec![0i64];
            for (d, stride) in &table.along {
                let n = i64::try_from(out.sizes[*d]).ok()?;
                steps = steps.into_iter().flat_map(|s| (0..n).map(move |i| s + stride * i)).collect();
            }
            let place = |v: i64| if (0..extent).contains(&v) { v } else { -1 };
            let values = table
                .values
                .iter()
                .flat_map(|&v| steps.iter().map(move |s| if v == HOLE { -1 } else { place(v.saturating_add(*s)) }))
                .collect();
            let digits: Vec<Digit> = table.digits.iter().copied().chain(table.along.iter().map(|(d, _)| *d)).collect();
            out.tables.push(Table { digits, values, along: Vec::new(), extent: Dim::fixed(extent) });
        }
        out.simplify();
        Some(out)
    }

    /// Values for the symbols at which every open digit is larger than all numbers in the forms, so that none of its sizes
    /// can be taken for one of them; several choices, in which the symbols differ. One without any if nothing is open.
    #[must_use]
    pub fn generic_sizes(&self) -> Option<Vec<Bindings>> {
        let of = |dims: &mut dyn Iterator<Item = &Dim>| dims.flat_map(Dim::symbols).collect::<BTreeSet<Symbol>>();
        let mut symbols = of(&mut self.open.values());
        symbols.extend(of(&mut self.tables.iter().map(|t| &t.extent)));
        if symbols.is_empty() {
            return Some(vec![Bindings::new()]);
        }
        let numbers = self.tables.iter().filter(|t| !t.along.is_empty()).flat_map(|t| {
            t.values
                .iter()
                .copied()
                .filter(|v| *v != HOLE)
                .chain(t.along.iter().map(|(_, s)| *s))
                .map(i64::saturating_abs)
        });
        let beyond = numbers.max().unwrap_or(0).max(8).saturating_mul(2).saturating_add(1);
        if beyond > LARGEST {
            return None;
        }
        let bind = |scale: i64, (first, step): (i64, i64)| -> Bindings {
            symbols.iter().zip(0..).map(|(s, i)| (s.clone(), scale * beyond + first + step * i)).collect()
        };
        let large = |scale: &i64| {
            SPREAD.iter().all(|spread| {
                let bindings = bind(*scale, *spread);
                self.open.values().all(|d| d.eval(&bindings).is_ok_and(|n| n >= beyond))
            })
        };
        let scale = (0..MOST_DOUBLINGS).map(|k| 1 << k).find(large)?;
        Some(SPREAD.iter().map(|spread| bind(scale, *spread)).collect())
    }
}

/// The sizes as text, for reasons.
#[must_use]
pub fn describe(bindings: &Bindings) -> String {
    let all: Vec<String> = bindings.iter().map(|(s, n)| format!("{s} = {n}")).collect();
    if all.is_empty() { String::new() } else { format!(" at {}", all.join(", ")) }
}
