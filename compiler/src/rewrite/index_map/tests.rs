//! Random chains of movement: the map says what running the chain on numbered elements gives.

use std::{collections::BTreeMap, fmt::Write, sync::Arc};

use convc_runtime::{
    Bindings, Tensor,
    session::{Session, SessionOptions},
};

use super::{
    IndexMap,
    chain::{Chains, sources, spell},
    sizes::Sized,
};
use crate::{
    ir::{Graph, text::parse},
    lower::lower,
    rewrite::{engine::Engine, view::Class},
};

/// A sequence of numbers that depends on its seed alone.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// A chain as text.
struct Chain {
    body: String,
    values: usize,
    shape: Vec<usize>,
    last: String,
}

impl Chain {
    fn constant(&mut self, dtype: &str, shape: &[usize], values: &str) -> String {
        self.values += 1;
        let _ = writeln!(self.body, "  c{}: {dtype}{shape:?} = {values}", self.values);
        format!("c{}", self.values)
    }

    fn ints(&mut self, v: &[i64]) -> String {
        self.constant("i64", &[v.len()], &format!("{v:?}"))
    }

    fn op(&mut self, name: &str, operands: &[&str], attributes: &str, shape: Vec<usize>) -> String {
        self.values += 1;
        let _ = writeln!(self.body, "  %{} = {name}({}) {{{attributes}}}", self.values, operands.join(", "));
        self.shape = shape;
        self.last = format!("%{}", self.values);
        self.last.clone()
    }

    /// A random operator on the last value.
    fn step(&mut self, rng: &mut Rng) {
        let (x, shape) = (self.last.clone(), self.shape.clone());
        let count: usize = shape.iter().product();
        if count > 3000 || count == 0 || shape.is_empty() {
            return;
        }
        let axis = rng.below(shape.len());
        let n = shape[axis];
        let with = |m: usize| {
            let mut out = shape.clone();
            out[axis] = m;
            out
        };
        match rng.below(12) {
            0 | 1 => {
                let mut left = count;
                let mut target = Vec::new();
                while left > 1 && target.len() < 4 {
                    let divisors: Vec<usize> = (1..=left).filter(|d| left.is_multiple_of(*d)).collect();
                    let d = divisors[rng.below(divisors.len())];
                    target.push(d);
                    left /= d;
                }
                target.push(left);
                let t = self.ints(&target.iter().map(|&n| n as i64).collect::<Vec<_>>());
                self.op("Reshape", &[&x, &t], "allowzero=0", target);
            }
            2 | 3 => {
                let mut perm: Vec<usize> = (0..shape.len()).collect();
                (0..perm.len()).for_each(|i| perm.swap(i, rng.below(shape.len())));
                let out = perm.iter().map(|&p| shape[p]).collect();
                self.op("Transpose", &[&x], &format!("perm={perm:?}"), out);
            }
            4 => {
                let step = [1, 2, -1, 3][rng.below(4)];
                let (a, b) = (rng.below(n), n);
                let picked = if step > 0 { (b - a).div_ceil(step as usize) } else { a + 1 };
                let (s, e) = (self.ints(&[a as i64]), self.ints(&[if step > 0 { b as i64 } else { i64::MIN }]));
                let (ax, st) = (self.ints(&[axis as i64]), self.ints(&[step]));
                self.op("Slice", &[&x, &s, &e, &ax, &st], "", with(picked));
            }
            5 => {
                let (begin, end) = (rng.below(3), rng.below(3));
                let mut pads = vec![0i64; 2 * shape.len()];
                pads[axis] = begin as i64;
                pads[shape.len() + axis] = end as i64;
                let p = self.ints(&pads);
                self.op("Pad", &[&x, &p], "mode=\"constant\"", with(n + begin + end));
            }
            6 => {
                let (r, c) = (1 + rng.below(3), 1 + rng.below(3));
                let picks: Vec<i64> = (0..r * c).map(|_| rng.below(2 * n) as i64 - n as i64).collect();
                let i = self.constant("i64", &[r, c], &format!("{picks:?}"));
                let mut out = shape.clone();
                out.splice(axis..=axis, [r, c]);
                self.op("Gather", &[&x, &i], &format!("axis={axis}"), out);
            }
            7 => {
                let mut repeats = vec![1i64; shape.len()];
                repeats[axis] = 2;
                let r = self.ints(&repeats);
                self.op("Tile", &[&x, &r], "", with(2 * n));
            }
            8 => {
                // Two views of the same elements, one behind the other.
                let mut parts = Vec::new();
                let mut extent = 0;
                for k in 0..2 + rng.below(2) {
                    let a = rng.below(n);
                    let (s, e, ax) = (self.ints(&[a as i64]), self.ints(&[n as i64]), self.ints(&[axis as i64]));
                    if k == 0 && rng.below(2) == 0 {
                        parts.push(x.clone());
                        extent += n;
                    } else {
                        parts.push(self.op("Slice", &[&x, &s, &e, &ax], "", with(n - a)));
                        extent += n - a;
                    }
                }
                let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
                self.op("Concat", &parts, &format!("axis={axis}"), with(extent));
            }
            9 => {
                let target: Vec<i64> = [2].into_iter().chain(shape.iter().map(|&n| n as i64)).collect();
                let t = self.ints(&target);
                let out = target.iter().map(|&n| n as usize).collect();
                self.op("Expand", &[&x, &t], "", out);
            }
            10 => {
                let m = shape[0];
                let picks: Vec<i64> = (0..3).map(|_| rng.below(2 * m) as i64 - m as i64).collect();
                let i = self.constant("i64", &[3, 1], &format!("{picks:?}"));
                let out = [3].into_iter().chain(shape[1..].iter().copied()).collect();
                self.op("GatherND", &[&x, &i], "batch_dims=0", out);
            }
            _ => self.unfold(rng),
        }
    }

    /// A convolution with a one-hot kernel.
    fn unfold(&mut self, rng: &mut Rng) {
        let (x, shape) = (self.last.clone(), self.shape.clone());
        let &[n, c, h, w] = shape.as_slice() else { return };
        let (kh, kw, s, d) = (1 + rng.below(3), 1 + rng.below(2), 1 + rng.below(2), 1 + rng.below(2));
        let group = if rng.below(2) == 0 { c } else { 1 };
        let inputs = c / group;
        let outputs = group * (1 + rng.below(3));
        let count = inputs * kh * kw;
        if h < d * (kh - 1) + 1 || count * outputs > 200 || (count == 1 && outputs == 1) {
            return;
        }
        let regular = rng.below(outputs.max(2));
        let mut values = vec![0.0; outputs * count];
        for o in 0..outputs {
            let at = if rng.below(4) == 0 { regular + o } else { regular + o * 7 };
            values[o * count + at % count] = 1.0;
        }
        let k = self.constant("f32", &[outputs, inputs, kh, kw], &format!("{values:?}"));
        let out = vec![n, outputs, (h + 1 - d * (kh - 1) - 1) / s + 1, (w + 2 - d * (kw - 1) - 1) / s + 1];
        let a =
            format!("auto_pad=\"NOTSET\", dilations=[{d}, {d}], group={group}, pads=[1, 0, 0, 2], strides=[{s}, {s}]");
        self.op("Conv", &[&x, &k], &a, out);
    }
}

fn run(graph: &Graph, x: Tensor) -> Vec<Tensor> {
    let plan = lower(graph).unwrap();
    let session = Session::new(Arc::new(plan), SessionOptions::default()).unwrap();
    session.run(&BTreeMap::from([("x".to_owned(), x)])).unwrap()
}

/// The tensor that a map makes of the numbers 1, 2, ..
fn expected(map: &IndexMap, source: &[usize]) -> Vec<f64> {
    let digits = map.axes.concat();
    let coordinates: Vec<Vec<i64>> = map.tables.iter().map(|t| map.over(t, &digits).unwrap()).collect();
    (0..map.size_of(&digits))
        .map(|i| {
            let at = |(c, n): (&Vec<i64>, &usize)| usize::try_from(c[i]).ok().map(|c| (c, *n));
            let places: Option<Vec<(usize, usize)>> = coordinates.iter().zip(source).map(at).collect();
            places.map_or(0.0, |p| 1.0 + p.into_iter().fold(0, |sum, (c, n)| sum * n + c) as f64)
        })
        .collect()
}

#[test]
fn maps_say_what_running_the_chain_gives() {
    let mut known = 0;
    for seed in 0..3000 {
        let mut rng = Rng(seed);
        let shape: Vec<usize> = (0..2 + rng.below(3)).map(|_| 1 + rng.below(5)).collect();
        let mut chain = Chain { body: String::new(), values: 0, shape: shape.clone(), last: "x".into() };
        for _ in 0..1 + rng.below(6) {
            chain.step(&mut rng);
        }
        let text = format!("graph(x: f32{shape:?}) {{\n{}  return {} as y\n}}\n", chain.body, chain.last);
        let graph = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let engine = Engine::new(graph.clone());
        let view = &engine.terms;
        let y = engine.term(engine.graph.outputs()[0].value).class();
        let x = engine.term(engine.graph.inputs()[0]).class();
        assert_eq!(engine.terms.find(&spell(view, y, x)), engine.terms.of_class(y), "{text}");
        let at = Sized::new(view, &[x, y]);
        let found = sources(view, y);
        let Some(map) = Chains::new(&at, x).map(y) else { panic!("no map of\n{text}") };
        assert!(found.contains(&x), "{text}");
        known += 1;
        let numbers: Vec<f32> = (1..=shape.iter().product::<usize>()).map(|i| i as f32).collect();
        let got = run(&graph, Tensor::new(shape.clone(), numbers).unwrap());
        let read = map.at(&Bindings::new()).unwrap();
        assert_eq!(got[0].to_f64s().unwrap(), expected(&read, &shape), "{text}{map:?}");
        // Over any value between, the map is that of what lies behind it.
        for s in found {
            let inner = Chains::new(&at, s).map(y);
            assert!(inner.is_some_and(|m| m.shape() == map.shape()), "{text}");
        }
        assert!(map.same(&map.clone()), "{text}");
    }
    assert_eq!(known, 3000);
}

fn class(engine: &Engine, output: usize) -> Class {
    engine.term(engine.graph.outputs()[output].value).class()
}

#[test]
fn other_elements_are_told_apart() {
    let text = r#"graph(x: f32[2, N, 6]) {
  s: i64[3] = [0, 3, -1]
  t: i64[3] = [0, -1, 6]
  i: i64[1, 6] = [0, 1, 2, 3, 4, 5]
  j: i64[1, 6] = [0, 1, 2, 3, 5, 4]
  %1 = Reshape(x, s) {allowzero=0}
  %2 = Reshape(%1, t) {allowzero=0}
  %3 = Gather(%2, i) {axis=2}
  %4 = Gather(%2, j) {axis=2}
  %5 = Reshape(%3, t) {allowzero=0}
  %6 = Reshape(%4, t) {allowzero=0}
  return %2 as a, %5 as b, %6 as c
}"#;
    // 3 divides N * 6 whatever N is.
    let engine = Engine::new(parse(text).unwrap());
    let view = &engine.terms;
    let x = engine.term(engine.graph.inputs()[0]).class();
    let at = Sized::new(view, &[x]);
    let mut chains = Chains::new(&at, x);
    let [a, b, c] = [0, 1, 2].map(|i| chains.map(class(&engine, i)).unwrap());
    assert!(a.same(&b) && !a.same(&c));
    assert_eq!(a.shape(), at.shape(x).unwrap());
}
