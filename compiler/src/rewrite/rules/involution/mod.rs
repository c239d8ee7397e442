//! Involution: one kernel for each position, recognised by what it computes.

mod product;
mod window;

use std::collections::BTreeMap;

use convc_runtime::{
    Dim, Op,
    ops::{Concat, Gather, Involution, Shape},
};

use self::{
    product::{Product, Tree},
    window::{Reading, read},
};
use super::{
    affine::equal_shapes,
    shape::reshape_operand,
    weights::{add, ints, reshape, transpose},
};
use crate::rewrite::{
    index_map::{
        IndexMap,
        chain::{Chains, sources},
        generic::describe,
        sizes::Sized,
    },
    rule::{Condition, Cx, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{App, Class, Expr, View, same_shape},
};

const WINDOW: Condition = Condition {
    name: "is-a-window",
    text: "tap t of output p is element strides*p - pads + dilations*t of x, and 0 beyond its border, whatever the sizes",
};
const GROUPED: Condition =
    Condition { name: "one-kernel-per-group", text: "neighbouring channels share a kernel, in groups of equal size" };

/// Sound over the reals: that is the operator's definition. The index maps of both factors of the product (see `index_map`) say
/// which elements are multiplied, in whatever operators the neighbours are laid out: Pad, Gather, Slice, Reshape, Transpose,
/// Concat, one-hot convolutions; the sum is a ReduceSum, an Einsum, a MatMul or a tree of additions.
/// Requires: the positions of a window, a kernel for each group of neighbouring channels, for all sizes: the maps are affine
/// along open axes, and all shapes are equal as expressions.
/// Not sound for: channels that are spread over the groups (`g = c mod G`); a window that shifts with the size of the map.
/// Exactness: reassociated (the taps are summed in their order).
/// Pays: the neighbours of all positions, T times as much as x, are not laid out.
pub const INVOLUTION: Rule = Rule {
    name: "involution",
    equation: "patches(x, k, z?) => arranged(Involution(x, arranged(k))) + z?",
    conditions: &[WINDOW, GROUPED],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "the neighbours of all positions are not laid out",
    phase: Phase::Recognise,
    folds: false,
    proposals: None,
    roots: &["ReduceSum", "Einsum", "MatMul", "Add", "Sum"],
    search: |cx, class, app| {
        if matches!(app.op, Op::Binary(_) | Op::Variadic(_)) {
            in_tree(cx, class, app);
        } else if let Some(product) = Product::below(cx.view, class, app.clone()) {
            let group = [product];
            if let Some(found) = recognise(cx, class, &group) {
                let lhs = group[0].spell(cx.view, found.sources_of(&group[0]));
                offer(cx, &found, lhs, found.result.clone());
            }
        }
    },
};

/// Sums of products one by one: the groups of summands that multiply the same two values.
fn in_tree(cx: &mut Cx<'_>, class: Class, app: &App<'_>) {
    let view = cx.view;
    let Some(tree) = Tree::at(view, class, app.clone()) else { return };
    let mut groups: BTreeMap<[u64; 2], Vec<Product<'_>>> = BTreeMap::new();
    let mut of_leaf: BTreeMap<u64, [u64; 2]> = BTreeMap::new();
    for &leaf in &tree.leaves {
        let Some(app) = view.apps(leaf).into_iter().next() else { continue };
        let Some(product) = Product::below(view, leaf, app) else { continue };
        if equal_shapes(view, leaf, class) != Some(true) || of_leaf.contains_key(&leaf.0) {
            continue;
        }
        let mut key = product.factors.map(|f| sources(view, f).last().map_or(f.0, |c| c.0));
        key.sort_unstable();
        of_leaf.insert(leaf.0, key);
        groups.entry(key).or_default().push(product);
    }
    for (key, group) in groups.into_iter().filter(|(_, g)| g.len() > 1) {
        let Some(found) = recognise(cx, tree.class(), &group) else { continue };
        let taken = |c: Class| of_leaf.get(&c.0) == Some(&key);
        let lhs = tree.spell(view, &|c| {
            let at = tree.leaves.iter().filter(|l| of_leaf.get(&l.0) == Some(&key)).position(|l| *l == c);
            match at.and_then(|i| group.get(i)) {
                Some(p) => p.spell(view, found.sources_of(p)),
                None => Expr::Class(c),
            }
        });
        let rest = tree.leaves.iter().filter(|c| !taken(**c)).map(|c| Expr::Class(*c));
        let rhs = rest.fold(found.result.clone(), add);
        offer(cx, &found, lhs, rhs);
    }
}

/// An involution that products sum up to, as it is seen.
struct Found {
    /// The kernel map, and x.
    kernel: Class,
    x: Class,
    not_a_window: Option<String>,
    not_grouped: Option<String>,
    /// The operator, in the shape of the sum.
    result: Expr,
    /// For each first factor of a product, whether it is the kernel map's.
    kernel_first: BTreeMap<Class, bool>,
}

impl Found {
    fn sources_of(&self, p: &Product<'_>) -> [Class; 2] {
        if self.kernel_first.get(&p.factors[0]) == Some(&true) { [self.kernel, self.x] } else { [self.x, self.kernel] }
    }
}

fn offer(cx: &mut Cx<'_>, found: &Found, lhs: Expr, rhs: Expr) {
    let verdict = |why: &Option<String>| why.clone().map_or(Verdict::Holds, Verdict::Fails);
    cx.begin();
    if cx.require(WINDOW.name, verdict(&found.not_a_window)) && cx.require(GROUPED.name, verdict(&found.not_grouped)) {
        cx.rewrite(lhs, rhs);
    }
}

/// The involution that a sum of products is: the first pair of sources, from the deepest on, that fits in all, or else the first
/// that has the form of one.
fn recognise(cx: &Cx<'_>, root: Class, group: &[Product<'_>]) -> Option<Found> {
    let view = cx.view;
    let mut almost = None;
    for swapped in [false, true] {
        let [a, b] = group.first()?.factors;
        let (kernel, x) = if swapped { (b, a) } else { (a, b) };
        for k in map_sources(view, kernel) {
            for m in map_sources(view, x).into_iter().filter(|m| *m != k && alike(view, k, *m)) {
                let Some(found) = try_sources(view, root, group, k, m) else { continue };
                if found.not_a_window.is_none() && found.not_grouped.is_none() {
                    return Some(found);
                }
                almost.get_or_insert(found);
            }
        }
    }
    almost
}

/// What a factor may be taken from, the deepest first: maps `[N, C, D..]` with known channels.
fn map_sources(view: &dyn View, factor: Class) -> Vec<Class> {
    let is_map = |c: &Class| {
        let fact = view.fact(*c);
        fact.is_some_and(|f| f.rank() >= 3 && f.shape[1].is_fixed())
    };
    sources(view, factor).into_iter().rev().filter(is_map).collect()
}

fn alike(view: &dyn View, a: Class, b: Class) -> bool {
    matches!((view.fact(a), view.fact(b)), (Some(a), Some(b)) if a.rank() == b.rank() && a.dtype == b.dtype)
}

fn try_sources(view: &dyn View, root: Class, group: &[Product<'_>], kernel: Class, x: Class) -> Option<Found> {
    let mut kernel_first = BTreeMap::new();
    for p in group {
        let [a, b] = p.factors.map(|f| sources(view, f));
        let first = a.contains(&kernel) && b.contains(&x);
        if !(first || a.contains(&x) && b.contains(&kernel)) {
            return None;
        }
        kernel_first.insert(p.factors[0], first);
    }
    let at = Sized::new(view, &[root, kernel, x]);
    let (map, kept, assumed) = map_of(&at, group, &kernel_first, kernel, x)?;
    let mut readings: Vec<(String, Reading)> = Vec::new();
    for b in map.generic_sizes()? {
        readings.push((describe(&b), read(&map, kept, &b)?));
    }
    let (_, first) = readings.first()?;
    let mut not_a_window = readings.iter().find_map(|(at, r)| Some(format!("{}{at}", r.not_a_window.as_ref()?)));
    if let Some((at, _)) = readings.iter().find(|(_, r)| !first.agrees(r)) {
        not_a_window.get_or_insert(format!("the window is another one{at}"));
    }
    let positions = &view.fact(kernel)?.shape[2..];
    if let Some(bound) = assumed.iter().find(|b| !holds_where_there_is_an_output(b, positions, &first.strides)) {
        not_a_window.get_or_insert_with(|| format!("{bound} may be negative, and a slice begins or ends there"));
    }
    let not_grouped = readings.iter().find_map(|(_, r)| r.not_grouped.clone());
    let (from, to) = (view.fact(x)?.shape.as_slice(), view.fact(kernel)?.shape.as_slice());
    let op = match operator(&readings, from, to) {
        Some(op) => op,
        None => {
            not_a_window.get_or_insert_with(|| "the kernel map has other sizes than the windows".into());
            first.operator(&first.ends)
        }
    };
    let result = result(view, root, kernel, x, first, op)?;
    Some(Found { kernel, x, not_a_window, not_grouped, result, kernel_first })
}

/// Whether a bound of a slice is no negative number wherever the result is not empty: it is `stride * outputs + c` with
/// `stride + c >= 0` along some axis. Of an empty result there is nothing to get wrong.
fn holds_where_there_is_an_output(bound: &Dim, outputs: &[Dim], strides: &[i64]) -> bool {
    outputs.iter().zip(strides).any(|(n, &s)| (bound - &(n * s)).as_fixed().is_some_and(|c| s.saturating_add(c) >= 0))
}

/// The operator whose outputs have the sizes of the kernel map, for all sizes of x.
fn operator(readings: &[(String, Reading)], x: &[Dim], kernel: &[Dim]) -> Option<Involution> {
    let first = &readings.first()?.1;
    let mut ends = Vec::new();
    for axis in 0..first.kernel_shape.len() {
        let least = readings.iter().map(|(_, r)| r.ends[axis]).max()?.max(0);
        let most = readings.iter().map(|(_, r)| r.ends[axis] + r.strides[axis] - 1).min()?;
        // The same padding as at the beginning, if that will do.
        let mut all: Vec<i64> = (least..=most.min(least + 64)).collect();
        all.sort_by_key(|e| *e != first.pads[axis]);
        let fits = |e: &i64| {
            let with: Vec<i64> =
                (0..first.ends.len()).map(|a| if a == axis { *e } else { first.ends[a].max(0) }).collect();
            let output = first.operator(&with).window().output(&x[2..]).ok();
            output.is_some_and(|o| o.get(axis).is_some_and(|d| d.equals(&kernel[axis + 2]) == Some(true)))
        };
        ends.push(all.into_iter().find(fits)?);
    }
    (x[0].equals(&kernel[0]) == Some(true)).then(|| first.operator(&ends))
}

/// The map of a sum of products: the tables of the kernel map and then those of x; the number of the result's axes, behind which
/// stand those that are summed over; and the bounds of slices that must not be negative for it.
fn map_of(
    at: &Sized<'_>,
    group: &[Product<'_>],
    kernel_first: &BTreeMap<Class, bool>,
    kernel: Class,
    x: Class,
) -> Option<(IndexMap, usize, Vec<Dim>)> {
    let (mut of_kernel, mut of_x) = (Chains::new(at, kernel), Chains::new(at, x));
    let mut maps: Vec<IndexMap> = Vec::new();
    let mut kept = 0;
    for p in group {
        let [a, b] = p.factors;
        let first = kernel_first.get(&a) == Some(&true);
        let factors = if first { [of_kernel.map(a)?, of_x.map(b)?] } else { [of_x.map(a)?, of_kernel.map(b)?] };
        let (map, axes) = p.map(at, factors, usize::from(!first))?;
        kept = axes;
        maps.push(map);
    }
    let map = if maps.len() == 1 {
        maps.pop()?
    } else {
        let rank = maps.first()?.rank();
        let maps = maps.into_iter().map(|m| m.unsqueeze(rank)).collect::<Option<_>>()?;
        IndexMap::concat(maps, rank)?
    };
    Some((map, kept, [of_kernel.assumed, of_x.assumed].concat()))
}

/// The operator's result as the sum has it: its axes split, reordered and joined.
fn result(view: &dyn View, root: Class, kernel: Class, x: Class, first: &Reading, op: Involution) -> Option<Expr> {
    let selected = match &first.select {
        None => Expr::Class(kernel),
        Some(channels) => Expr::op(Gather { axis: 1 }, vec![Some(kernel.into()), Some(Expr::Constant(ints(channels)))]),
    };
    let y = Expr::op(op, vec![Some(x.into()), Some(selected)]);
    let (of_x, of_kernel) = (view.fact(x)?, view.fact(kernel)?);
    let shape: Vec<Dim> = of_x.shape[..2].iter().chain(&of_kernel.shape[2..]).cloned().collect();
    let goal = &view.fact(root)?.shape;
    let digits: Vec<_> = first.layout.concat();
    let known = [(kernel, &of_kernel.shape), (x, &of_x.shape)];
    if digits.is_sorted_by_key(|(place, _)| *place) {
        return reshaped(y, &shape, goal, &known);
    }
    // One axis for each digit; only channels, which are known, have several.
    let mut split: Vec<((usize, usize), Dim)> = Vec::new();
    for (axis, dim) in shape.iter().enumerate() {
        let own: Vec<_> = digits.iter().filter(|(p, _)| p.0 == axis).collect();
        match own.as_slice() {
            [] | [_] => split.push(((axis, 0), dim.clone())),
            several if axis == 1 => split.extend(several.iter().map(|(p, n)| (*p, Dim::from(*n)))),
            _ => return None,
        }
    }
    split.sort_by_key(|s| s.0);
    let place = |p: (usize, usize)| split.iter().position(|s| s.0 == p);
    let mut perm: Vec<usize> = digits.iter().map(|(p, _)| place(*p)).collect::<Option<_>>()?;
    // Sizes of 1 have no digit; they may stand anywhere.
    perm.extend((0..split.len()).filter(|i| !digits.iter().any(|(p, _)| place(*p) == Some(*i))));
    let parts: Vec<Dim> = split.iter().map(|s| s.1.clone()).collect();
    let turned: Vec<Dim> = perm.iter().map(|&i| parts[i].clone()).collect();
    let order: Vec<i64> = perm.iter().map(|&i| i as i64).collect();
    reshaped(transpose(reshaped(y, &shape, &parts, &known)?, &order), &turned, goal, &known)
}

/// `e`, of shape `from`, in shape `to`, whose sizes may be those of `known` classes.
fn reshaped(e: Expr, from: &[Dim], to: &[Dim], known: &[(Class, &Vec<Dim>)]) -> Option<Expr> {
    if same_shape(from, to) == Some(true) {
        return Some(e);
    }
    if Dim::product(from).equals(&Dim::product(to)) != Some(true) {
        return None;
    }
    let (operand, exact) = reshape_operand(from, to);
    if exact {
        return Some(reshape(e, &operand));
    }
    let mut parts: Vec<Expr> = Vec::new();
    let mut constants: Vec<i64> = Vec::new();
    for d in to {
        if let Some(n) = d.as_fixed() {
            constants.push(n);
            continue;
        }
        let (class, axis) = known.iter().find_map(|(c, s)| Some((*c, s.iter().position(|x| x == d)? as i64)))?;
        if !constants.is_empty() {
            parts.push(Expr::Constant(ints(&std::mem::take(&mut constants))));
        }
        parts.push(Expr::op(Shape { start: axis, end: Some(axis + 1) }, vec![Some(class.into())]));
    }
    if !constants.is_empty() {
        parts.push(Expr::Constant(ints(&constants)));
    }
    let shape = Expr::op(Concat { axis: 0 }, parts.into_iter().map(Some).collect());
    let op = convc_runtime::ops::Reshape { allowzero: false };
    Some(Expr::op(op, vec![Some(e), Some(shape)]))
}

/// The rules of this file.
pub const RULES: &[&Rule] = &[&INVOLUTION];
