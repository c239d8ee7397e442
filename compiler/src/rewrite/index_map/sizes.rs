//! The sizes at which index maps are made, and the small tensors of indices and shapes at these sizes.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use convc_runtime::{
    Bindings, DType, Dim, Op, Real, Symbol, Tensor,
    fact::Known,
    ops::{RunCx, binary::BinaryKind, unary::UnaryKind},
    sys::Pool,
};

use super::LIMIT;
use crate::rewrite::view::{App, Class, View};

/// Sizes to try for the first symbol; the next ones get larger ones, all different. Odd, even, with many divisors, and mixed: a
/// model may need sizes that divide.
const TRIED: &[(i64, i64)] = &[(23, 6), (26, 4), (32, 32), (24, 8), (21, 7)];

/// The least of [`TRIED`].
const LEAST: i64 = 21;

/// How often a map's sizes may have been halved for larger sizes to be tried.
const MOST_HALVINGS: u32 = 8;

/// How many of the choices of sizes must be possible for what is found there to count.
pub const NEEDED: usize = 3;

/// Operators nested in the arithmetic of indices at most.
const DEPTH: usize = 64;

/// Values for the symbols of the facts of these classes, several choices, at which no open size is small if that can be
/// had; one without any if there are no symbols.
#[must_use]
pub fn choices(view: &dyn View, classes: &[Class]) -> Vec<Bindings> {
    let symbols: BTreeSet<Symbol> = classes
        .iter()
        .filter_map(|c| view.fact(*c))
        .flat_map(|f| f.shape.iter().flat_map(Dim::symbols).collect::<Vec<_>>())
        .collect();
    if symbols.is_empty() {
        return vec![Bindings::new()];
    }
    let bind = |scale: i64, rest: i64, &(first, step): &(i64, i64)| {
        symbols.iter().zip(0..).map(|(s, i)| (s.clone(), scale * (first + step * i) + rest)).collect::<Bindings>()
    };
    // Deep in a network the maps are a fraction of what the symbols stand for.
    let open = || classes.iter().filter_map(|c| view.fact(*c)).flat_map(|f| &f.shape).filter(|d| !d.is_fixed());
    let reaches = |scale: &i64| {
        TRIED.iter().all(|t| {
            let bindings = bind(*scale, 0, t);
            open().all(|d| d.eval(&bindings).is_ok_and(|n| n >= LEAST))
        })
    };
    let scale = (0..MOST_HALVINGS).map(|k| 1 << k).find(reaches).unwrap_or(1);
    // Multiples of the scale alone would not tell a size from the one it is rounded down to.
    let uneven = TRIED.iter().zip(1..).filter(|_| scale > 1).map(|(t, rest)| bind(scale, rest, t));
    TRIED.iter().map(|t| bind(scale, 0, t)).chain(uneven).collect()
}

/// A view at chosen sizes.
pub struct Sized<'a> {
    /// The view.
    pub view: &'a dyn View,
    /// The sizes.
    pub bindings: Bindings,
    values: RefCell<BTreeMap<Class, Option<Tensor>>>,
}

impl<'a> Sized<'a> {
    /// A view at these sizes.
    #[must_use]
    pub fn new(view: &'a dyn View, bindings: Bindings) -> Sized<'a> {
        Sized { view, bindings, values: RefCell::default() }
    }

    /// The sizes as text, for reasons.
    #[must_use]
    pub fn describe(&self) -> String {
        let all: Vec<String> = self.bindings.iter().map(|(s, n)| format!("{s} = {n}")).collect();
        if all.is_empty() { String::new() } else { format!(" at {}", all.join(", ")) }
    }

    /// The shape of a class.
    #[must_use]
    pub fn shape(&self, class: Class) -> Option<Vec<usize>> {
        self.view.fact(class)?.shape.iter().map(|d| usize::try_from(d.eval(&self.bindings).ok()?).ok()).collect()
    }

    /// The integers of a class.
    #[must_use]
    pub fn ints(&self, class: Class) -> Option<Vec<i64>> {
        self.value(class, DEPTH)?.to_i64s()
    }

    /// The tensor of a class, if it is made of constants and sizes by arithmetic that few sizes tell everything about.
    fn value(&self, class: Class, depth: usize) -> Option<Tensor> {
        if let Some(known) = self.values.borrow().get(&class) {
            return known.clone();
        }
        let value = self.evaluate(class, depth);
        self.values.borrow_mut().insert(class, value.clone());
        value
    }

    fn evaluate(&self, class: Class, depth: usize) -> Option<Tensor> {
        if let Some(c) = self.view.constant(class) {
            return c.to_tensor().ok();
        }
        if let Some(known) = self.known(class) {
            return Some(known);
        }
        let constant = self.view.is_constant(class);
        self.view.apps(class).into_iter().find_map(|app| {
            if let (Op::Shape(s), Some(x)) = (app.op, app.operand(0)) {
                let shape: Vec<i64> = self.shape(x)?.into_iter().map(|n| n as i64).collect();
                return Some(Tensor::vector(shape.get(s.range(shape.len()))?.to_vec()));
            }
            if let (Op::Size(_), Some(x)) = (app.op, app.operand(0)) {
                return Some(Tensor::scalar(self.shape(x)?.into_iter().product::<usize>() as i64));
            }
            let depth = depth.checked_sub(1)?;
            if !constant && !self.tells_everything(&app, depth) {
                return None;
            }
            let operands: Vec<Option<Tensor>> = app
                .operands
                .iter()
                .map(|o| o.map_or(Some(None), |o| self.value(o, depth).map(Some)))
                .collect::<Option<_>>()?;
            let operands: Vec<Option<&Tensor>> = operands.iter().map(Option::as_ref).collect();
            let pool = Pool::new(1);
            let cx = RunCx { max_elements: LIMIT, ..RunCx::new(Real::Native, &pool) };
            app.op.run(&operands, &cx).ok()?.into_iter().next()
        })
    }

    /// The elements that the fact of a class knows.
    fn known(&self, class: Class) -> Option<Tensor> {
        let fact = self.view.fact(class)?;
        match fact.known.as_ref()? {
            Known::Constant(t) => Some(t.clone()),
            Known::Dims(dims) => {
                // An extremum may be another one at sizes that are not tried.
                if dims.iter().any(|d| {
                    !d.is_fixed() && {
                        let t = d.to_string();
                        t.contains("min(") || t.contains("max(")
                    }
                }) {
                    return None;
                }
                let v: Vec<i64> = dims.iter().map(|d| d.eval(&self.bindings).ok()).collect::<Option<_>>()?;
                let shape = self.shape(class)?;
                match fact.dtype {
                    DType::I64 => Tensor::new(shape, v).ok(),
                    DType::I32 => {
                        let v: Vec<i32> = v.iter().map(|&x| i32::try_from(x).ok()).collect::<Option<_>>()?;
                        Tensor::new(shape, v).ok()
                    }
                    _ => None,
                }
            }
        }
    }

    /// Whether few sizes tell what an operator makes of symbolic integers: no minimum, maximum or choice, whose outcome may
    /// turn at a size that is not tried, and no quotient by a number that the tried sizes do not reach.
    fn tells_everything(&self, app: &App<'_>, depth: usize) -> bool {
        let small_divisor = || {
            let divisor = app.operand(1).and_then(|c| Some((c, self.value(c, depth)?.to_i64s()?)));
            divisor.is_some_and(|(c, v)| !self.view.is_constant(c) || v.iter().all(|v| v.abs() <= LEAST))
        };
        match app.op {
            Op::Gather(_)
            | Op::Concat(_)
            | Op::Slice(_)
            | Op::Unsqueeze(_)
            | Op::Squeeze(_)
            | Op::Reshape(_)
            | Op::Flatten(_)
            | Op::Expand(_)
            | Op::Tile(_)
            | Op::Range(_)
            | Op::Transpose(_)
            | Op::ConstantOfShape(_)
            | Op::Identity(_) => true,
            Op::Cast(c) => c.to.is_integer(),
            Op::Unary(u) => u.kind == UnaryKind::Neg,
            Op::Binary(b) => match b.kind {
                BinaryKind::Add | BinaryKind::Sub | BinaryKind::Mul => true,
                BinaryKind::Div => small_divisor(),
                _ => false,
            },
            Op::Mod(_) => small_divisor(),
            _ => false,
        }
    }
}
