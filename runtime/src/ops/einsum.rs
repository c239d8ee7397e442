//! Sums of products in Einstein's notation: <https://onnx.ai/onnx/operators/onnx__Einsum.html>.

use std::collections::BTreeMap;

use crate::{
    Data, Dim, Fact, OpError, Tensor, attributes,
    ops::{
        InferCx, Operator, RunCx,
        elementwise::{same_type, shape_error},
        helpers::{broadcast, elements, expect_dtype, required},
        matmul::Product,
        reduce::fold_axes,
        widened,
    },
    scalar::{Field, Scalar},
};

attributes! {
    /// The sum, over all letters that the result lacks, of the products of the operands' elements that the letters name.
    ///
    /// Operands are multiplied from the first to the last, each pair as a batched product of matrices. A letter that only
    /// one operand has and nothing later needs is summed before the product.
    pub struct Einsum {
        /// The equation, such as `ij,jk->ik`; without an arrow the letters that occur once form the result, sorted.
        pub equation: String,
    }
}

/// What an axis stands for: a letter, or an axis of the ellipsis counted from its back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    Ellipsis(usize),
    Letter(char),
}

/// The labels of each operand's axes and of the result's.
struct Terms {
    operands: Vec<Vec<Label>>,
    result: Vec<Label>,
}

fn malformed(problem: String) -> OpError {
    OpError::Attribute { name: "equation", problem }
}

/// The labels of one term whose ellipsis stands for `hidden` axes.
fn labels(term: &str, hidden: usize) -> Result<Vec<Label>, OpError> {
    let mut out = Vec::new();
    let mut rest = term;
    let mut ellipses = 0;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("...") {
            ellipses += 1;
            out.extend((0..hidden).rev().map(Label::Ellipsis));
            rest = after;
        } else if c.is_ascii_alphabetic() {
            out.push(Label::Letter(c));
            rest = &rest[1..];
        } else {
            return Err(malformed(format!("{term:?} holds {c:?}")));
        }
    }
    if ellipses > 1 {
        return Err(malformed(format!("{term:?} holds two ellipses")));
    }
    Ok(out)
}

impl Einsum {
    fn terms(&self, ranks: &[usize]) -> Result<Terms, OpError> {
        let equation: String = self.equation.chars().filter(|c| !c.is_whitespace()).collect();
        let (left, right) = match equation.split_once("->") {
            Some((l, r)) => (l, Some(r)),
            None => (equation.as_str(), None),
        };
        let terms: Vec<&str> = left.split(',').collect();
        if terms.len() != ranks.len() {
            return Err(malformed(format!("{equation:?} has {} terms for {} operands", terms.len(), ranks.len())));
        }
        let mut operands = Vec::with_capacity(terms.len());
        let mut hidden = 0;
        for (term, &rank) in terms.iter().zip(ranks) {
            let letters = term.chars().filter(char::is_ascii_alphabetic).count();
            let dots = term.contains("...");
            let spare = rank.checked_sub(letters).filter(|&spare| dots || spare == 0);
            let spare = spare.ok_or_else(|| malformed(format!("{term:?} does not fit an operand of rank {rank}")))?;
            hidden = hidden.max(spare);
            operands.push(labels(term, spare)?);
        }
        let result = match right {
            Some(r) => labels(r, hidden)?,
            None => {
                let mut times: BTreeMap<Label, usize> = BTreeMap::new();
                operands.iter().flatten().for_each(|l| *times.entry(*l).or_default() += 1);
                let once = times.into_iter().filter(|&(l, n)| n == 1 && matches!(l, Label::Letter(_))).map(|(l, _)| l);
                (0..hidden).rev().map(Label::Ellipsis).chain(once).collect()
            }
        };
        for (i, l) in result.iter().enumerate() {
            if result[..i].contains(l) {
                return Err(malformed(format!("the result of {equation:?} names an axis twice")));
            }
            // An ellipsis that no operand fills stands for no axes.
            if !operands.iter().any(|o| o.contains(l)) {
                return Err(malformed(format!("no operand of {equation:?} has all axes of its result")));
            }
        }
        Ok(Terms { operands, result })
    }
}

/// A tensor whose axes have distinct labels.
#[derive(Debug, Clone)]
struct Labelled<T> {
    labels: Vec<Label>,
    shape: Vec<usize>,
    elements: Vec<T>,
}

/// The elements at the given steps, row-major over `shape`.
fn gather<T: Copy>(v: &[T], shape: &[usize], steps: &[usize]) -> Vec<T> {
    let count: usize = shape.iter().product();
    let mut out = Vec::with_capacity(count);
    let (inner, step) = (shape.last().copied().unwrap_or(1), steps.last().copied().unwrap_or(0));
    let outer = shape.len().saturating_sub(1);
    let mut index = vec![0; outer];
    let mut at = 0;
    while out.len() < count {
        if step == 1 {
            out.extend_from_slice(&v[at..at + inner]);
        } else {
            out.extend((0..inner).map(|i| v[at + i * step]));
        }
        for ((i, s), n) in index.iter_mut().zip(steps).zip(&shape[..outer]).rev() {
            *i += 1;
            at += s;
            if *i < *n {
                break;
            }
            *i = 0;
            at -= s * n;
        }
    }
    out
}

fn strides(shape: &[usize]) -> Vec<usize> {
    let mut out = vec![0; shape.len()];
    let mut step = 1;
    for (s, n) in out.iter_mut().zip(shape).rev() {
        *s = step;
        step *= n;
    }
    out
}

impl<T: Copy> Labelled<T> {
    /// The operand with repeated labels taken along the diagonal, and axes of size 1 that others broadcast left at 1.
    fn of(v: &[T], shape: &[usize], axes: &[Label]) -> Labelled<T> {
        let mut labels: Vec<Label> = Vec::new();
        let (mut sizes, mut steps): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
        for ((&l, &n), s) in axes.iter().zip(shape).zip(strides(shape)) {
            let s = if n == 1 { 0 } else { s };
            match labels.iter().position(|&k| k == l) {
                Some(i) => {
                    sizes[i] = if sizes[i] == 1 { n } else { sizes[i] };
                    steps[i] += s;
                }
                None => {
                    labels.push(l);
                    sizes.push(n);
                    steps.push(s);
                }
            }
        }
        let elements =
            if labels.len() == axes.len() { v.to_vec() } else { gather(v, &sizes, &steps) };
        Labelled { labels, shape: sizes, elements }
    }

    /// The elements with the axes `order`, each of the size that `sizes` says; axes that are missing or of size 1 repeat.
    fn arranged(&self, order: &[Label], sizes: &BTreeMap<Label, usize>) -> Vec<T> {
        let own = strides(&self.shape);
        let size = |l| sizes.get(l).copied().unwrap_or(1);
        let step = |l| match self.labels.iter().position(|k| k == l) {
            Some(i) if self.shape[i] != 1 || size(l) == 1 => own[i],
            _ => 0,
        };
        let shape: Vec<usize> = order.iter().map(size).collect();
        gather(&self.elements, &shape, &order.iter().map(step).collect::<Vec<_>>())
    }
}

trait Number: Product {
    fn sum(cx: &RunCx<'_>, x: &[Self], shape: &[usize], reduced: &[bool]) -> Vec<Self>;
    fn scaled(self, n: usize) -> Self;
}

macro_rules! real_number {
    ($($t:ty)*) => { $(
        impl Number for $t {
            fn sum(cx: &RunCx<'_>, x: &[Self], shape: &[usize], reduced: &[bool]) -> Vec<Self> {
                super::reduce::sums(cx.pool, x, shape, reduced)
            }
            fn scaled(self, n: usize) -> Self {
                Scalar::mul(self, <$t as Scalar>::from_f64(n as f64))
            }
        }
    )* };
}
real_number!(f32 f64 Field);

macro_rules! integer_number {
    ($($t:ty)*) => { $(
        impl Number for $t {
            fn sum(cx: &RunCx<'_>, x: &[Self], shape: &[usize], reduced: &[bool]) -> Vec<Self> {
                fold_axes(cx.pool, x, shape, reduced, 0, |_, a, v| super::integer::Integer::add(*a, v))
            }
            fn scaled(self, n: usize) -> Self {
                self.wrapping_mul(n as $t)
            }
        }
    )* };
}
integer_number!(i8 i16 i32 i64 u8 u16 u32 u64);

/// Sums out the axes that `needed` refuses.
fn summed<T: Number>(
    cx: &RunCx<'_>,
    x: Labelled<T>,
    sizes: &BTreeMap<Label, usize>,
    needed: impl Fn(&Label) -> bool,
) -> Labelled<T> {
    let reduced: Vec<bool> = x.labels.iter().map(|l| !needed(l)).collect();
    if !reduced.contains(&true) {
        return x;
    }
    let mut elements = T::sum(cx, &x.elements, &x.shape, &reduced);
    // An axis of size 1 that other operands have wider counts as often as it repeats.
    let gone = || x.labels.iter().zip(&x.shape).zip(&reduced).filter(|(_, r)| **r).map(|(ln, _)| ln);
    let times: usize = gone().map(|(l, &n)| if n == 1 { sizes.get(l).copied().unwrap_or(1) } else { 1 }).product();
    if times != 1 {
        elements.iter_mut().for_each(|v| *v = v.scaled(times));
    }
    let kept = |i: &usize| !reduced[*i];
    Labelled {
        labels: (0..x.labels.len()).filter(kept).map(|i| x.labels[i]).collect(),
        shape: (0..x.labels.len()).filter(kept).map(|i| x.shape[i]).collect(),
        elements,
    }
}

/// The product of two operands, summed over the labels that both have and `needed` refuses.
fn pair<T: Number>(
    cx: &RunCx<'_>,
    a: &Labelled<T>,
    b: &Labelled<T>,
    all: &BTreeMap<Label, usize>,
    needed: impl Fn(&Label) -> bool,
) -> Result<Labelled<T>, OpError> {
    let (mut batch, mut sum, mut rows, mut columns) = (vec![], vec![], vec![], vec![]);
    for l in &a.labels {
        match (b.labels.contains(l), needed(l)) {
            (true, true) => batch.push(*l),
            (true, false) => sum.push(*l),
            _ => rows.push(*l),
        }
    }
    columns.extend(b.labels.iter().filter(|l| !a.labels.contains(l)));
    // A label has in the result the larger of the operands' sizes, and that of the whole where it is summed here.
    let mut sizes: BTreeMap<Label, usize> = BTreeMap::new();
    for (l, &n) in a.labels.iter().zip(&a.shape).chain(b.labels.iter().zip(&b.shape)) {
        let s = sizes.entry(*l).or_insert(n);
        *s = if *s == 1 { n } else { *s };
    }
    for l in &sum {
        sizes.insert(*l, all.get(l).copied().unwrap_or(1));
    }
    let size = |labels: &[Label]| labels.iter().map(|l| sizes.get(l).copied().unwrap_or(1)).product::<usize>();
    let (m, k, n) = (size(&rows), size(&sum), size(&columns));
    let labels = [&batch[..], &rows, &columns].concat();
    let shape: Vec<usize> = labels.iter().map(|l| sizes.get(l).copied().unwrap_or(1)).collect();
    let mut elements = vec![T::default(); cx.count(&shape)?];
    let orders = ([&batch[..], &rows, &sum].concat(), [&batch[..], &sum, &columns].concat());
    for order in [&orders.0, &orders.1] {
        cx.count(&order.iter().map(|l| sizes.get(l).copied().unwrap_or(1)).collect::<Vec<_>>())?;
    }
    let (va, vb) = (a.arranged(&orders.0, &sizes), b.arranged(&orders.1, &sizes));
    for (i, c) in elements.chunks_exact_mut((m * n).max(1)).enumerate() {
        T::product(cx, [m, k, n], &va[i * m * k..][..m * k], &vb[i * k * n..][..k * n], c);
    }
    Ok(Labelled { labels, shape, elements })
}

impl Einsum {
    fn evaluate<T: Number>(&self, inputs: &[&Tensor], cx: &RunCx<'_>) -> Result<Tensor, OpError> {
        let ranks: Vec<usize> = inputs.iter().map(|t| t.rank()).collect();
        let terms = self.terms(&ranks)?;
        let mut sizes: BTreeMap<Label, usize> = BTreeMap::new();
        for (index, (t, labels)) in inputs.iter().zip(&terms.operands).enumerate() {
            for (l, &n) in labels.iter().zip(t.shape()) {
                let s = sizes.entry(*l).or_insert(n);
                match (*s, n) {
                    (a, b) if a == b => {}
                    (1, n) => *s = n,
                    (_, 1) => {}
                    _ => {
                        let fact = Fact::fixed(t.dtype(), t.shape());
                        return Err(shape_error(index, "Inputs", &fact, format!("{s} is needed where the equation repeats an axis")));
                    }
                }
            }
        }
        let shape: Vec<usize> = terms.result.iter().map(|l| sizes.get(l).copied().unwrap_or(1)).collect();
        cx.count(&shape)?;
        let mut acc: Option<Labelled<T>> = None;
        for (index, (t, labels)) in inputs.iter().zip(&terms.operands).enumerate() {
            let later = &terms.operands[index + 1..];
            let needed = |l: &Label| terms.result.contains(l) || later.iter().any(|o| o.contains(l));
            let x = Labelled::of(elements::<T>(t, index, "Inputs")?, t.shape(), labels);
            acc = Some(match acc {
                None => summed(cx, x, &sizes, needed),
                Some(a) => {
                    let x = summed(cx, x, &sizes, |l| needed(l) || a.labels.contains(l));
                    pair(cx, &a, &x, &sizes, needed)?
                }
            });
        }
        let acc = acc.ok_or(OpError::MissingInput { index: 0, name: "Inputs" })?;
        Ok(Tensor::new(shape, acc.arranged(&terms.result, &sizes))?)
    }
}

impl Operator for Einsum {
    single!(Einsum, "Einsum");

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let first = required(inputs, 0, "Inputs")?;
        expect_dtype(first, 0, "Inputs", "a number type", |d| d.is_float() || d.is_integer())?;
        let facts = (0..inputs.len()).map(|i| required(inputs, i, "Inputs")).collect::<Result<Vec<&Fact>, _>>()?;
        let terms = self.terms(&facts.iter().map(|f| f.rank()).collect::<Vec<_>>())?;
        let mut sizes: BTreeMap<Label, Dim> = BTreeMap::new();
        for (index, (f, labels)) in facts.iter().zip(&terms.operands).enumerate() {
            same_type(first.dtype, f.dtype, index, "Inputs")?;
            for (l, d) in labels.iter().zip(&f.shape) {
                let both = match sizes.get(l) {
                    None => d.clone(),
                    Some(s) => broadcast(&[std::slice::from_ref(s), std::slice::from_ref(d)])
                        .map_err(|_| shape_error(index, "Inputs", f, format!("{s} is needed where the equation repeats an axis")))?
                        .pop()
                        .unwrap_or_else(|| d.clone()),
                };
                sizes.insert(*l, both);
            }
        }
        let shape: Vec<Dim> = terms.result.iter().filter_map(|l| sizes.get(l).cloned()).collect();
        Ok(vec![Fact::new(first.dtype, shape)])
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        widened(inputs, |inputs| {
            let first = required(inputs, 0, "Inputs")?;
            let all = (0..inputs.len()).map(|i| required(inputs, i, "Inputs")).collect::<Result<Vec<&Tensor>, _>>()?;
            let y = match first.data() {
                Data::F32(_) => self.evaluate::<f32>(&all, cx)?,
                Data::F64(_) => self.evaluate::<f64>(&all, cx)?,
                Data::Field(_) => self.evaluate::<Field>(&all, cx)?,
                Data::I8(_) => self.evaluate::<i8>(&all, cx)?,
                Data::I16(_) => self.evaluate::<i16>(&all, cx)?,
                Data::I32(_) => self.evaluate::<i32>(&all, cx)?,
                Data::I64(_) => self.evaluate::<i64>(&all, cx)?,
                Data::U8(_) => self.evaluate::<u8>(&all, cx)?,
                Data::U16(_) => self.evaluate::<u16>(&all, cx)?,
                Data::U32(_) => self.evaluate::<u32>(&all, cx)?,
                Data::U64(_) => self.evaluate::<u64>(&all, cx)?,
                _ => {
                    let expected = "a number type";
                    return Err(OpError::InputType { index: 0, name: "Inputs", dtype: first.dtype(), expected });
                }
            };
            Ok(vec![y])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{close, indices, numbers, run};

    /// By a loop over all letters at once. Upper-case letters play the ellipsis.
    fn direct(operands: &[(&str, &Tensor)], result: &str) -> Tensor {
        let mut letters: Vec<char> = operands.iter().flat_map(|(t, _)| t.chars()).collect();
        letters.sort_unstable();
        letters.dedup();
        let size = |c: char| {
            operands
                .iter()
                .flat_map(|(t, x)| t.chars().zip(x.shape().iter().copied()))
                .filter(|(k, _)| *k == c)
                .map(|(_, n)| n)
                .fold(1, |a, n| if a == 1 { n } else { a })
        };
        let sizes: Vec<usize> = letters.iter().map(|&c| size(c)).collect();
        let shape: Vec<usize> = result.chars().map(size).collect();
        let at = |index: &[usize], term: &str, shape: &[usize]| {
            term.chars().zip(shape).fold(0, |at, (c, &n)| {
                let i = index[letters.iter().position(|&l| l == c).unwrap()];
                at * n + if n == 1 { 0 } else { i }
            })
        };
        let mut y = vec![0f64; shape.iter().product()];
        for index in indices(&sizes) {
            let product: f64 =
                operands.iter().map(|(t, x)| x.to_f64s().unwrap()[at(&index, t, x.shape())]).product();
            y[at(&index, result, &shape)] += product;
        }
        Tensor::new(shape, y.into_iter().map(|v| v as f32).collect()).unwrap()
    }

    #[test]
    fn equations() {
        type Case<'a> = (&'a str, &'a [&'a [usize]], &'a [&'a str], &'a str);
        let cases: &[Case<'_>] = &[
            ("ij,jk->ik", &[&[2, 3], &[3, 4]], &["ij", "jk"], "ik"),
            ("ims,ois->oim", &[&[3, 4, 5], &[2, 3, 5]], &["ims", "ois"], "oim"),
            ("ij->ji", &[&[2, 3]], &["ij"], "ji"),
            ("ij->", &[&[2, 3]], &["ij"], ""),
            ("ii->i", &[&[3, 3]], &["ii"], "i"),
            ("ii", &[&[3, 3]], &["ii"], ""),
            ("i,i", &[&[4], &[4]], &["i", "i"], ""),
            ("i,i->i", &[&[4], &[4]], &["i", "i"], "i"),
            ("i,j->ij", &[&[4], &[3]], &["i", "j"], "ij"),
            ("bij, bjk -> bik", &[&[2, 3, 4], &[2, 4, 2]], &["bij", "bjk"], "bik"),
            ("...ij,...jk->...ik", &[&[2, 3, 4], &[4, 2]], &["Bij", "jk"], "Bik"),
            ("...ij,...jk->...ik", &[&[2, 1, 3, 4], &[5, 4, 2]], &["ABij", "Bjk"], "ABik"),
            ("...ii->...i", &[&[2, 3, 3]], &["Bii"], "Bi"),
            ("...,...", &[&[2, 3], &[3]], &["AB", "B"], "AB"),
            ("ba", &[&[2, 3]], &["ba"], "ab"),
            ("ij,jk,kl->il", &[&[2, 3], &[3, 4], &[4, 2]], &["ij", "jk", "kl"], "il"),
            ("ij,kj->", &[&[2, 3], &[4, 3]], &["ij", "kj"], ""),
            ("ij,j->i", &[&[2, 1], &[3]], &["ij", "j"], "i"),
            ("ij,ik->k", &[&[2, 3], &[2, 4]], &["ij", "ik"], "k"),
            (",ij->ij", &[&[], &[2, 2]], &["", "ij"], "ij"),
            ("ij,jk->ik", &[&[2, 0], &[0, 4]], &["ij", "jk"], "ik"),
            ("ijk,k->...ji", &[&[2, 3, 4], &[4]], &["ijk", "k"], "ji"),
        ];
        for (equation, shapes, terms, result) in cases {
            let x: Vec<Tensor> = shapes.iter().zip(1..).map(|(s, seed)| numbers(s, seed)).collect();
            let named: Vec<(&str, &Tensor)> = terms.iter().copied().zip(&x).collect();
            let y = run(&Einsum { equation: (*equation).into() }, &x.iter().collect::<Vec<_>>());
            let y = y.unwrap_or_else(|e| panic!("{equation}: {e}"));
            close(&y[0], &direct(&named, result), 1e-5);
        }
    }

    #[test]
    fn malformed_equations() {
        for equation in ["ij,jk->ik", "ij->ii", "ij->k", "i", "i.j", "......ij", "i1", "ijk", "ij->...."] {
            assert!(run(&Einsum { equation: equation.into() }, &[&numbers(&[2, 3], 1)]).is_err(), "{equation}");
        }
        assert!(run(&Einsum { equation: "ii".into() }, &[&numbers(&[2, 3], 1)]).is_err());
    }
}
