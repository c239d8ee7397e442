//! [`Positive`]: sizes that are at least 1 wherever a model runs, since it has a convolution that fails otherwise.

use std::collections::BTreeSet;

use convc_runtime::{Dim, Fact, Op, window::AutoPad};

use crate::ir::{Graph, Value};

/// Sizes that are at least 1 wherever the model runs.
#[derive(Debug, Clone, Default)]
pub struct Positive(BTreeSet<Dim>);

impl Positive {
    /// What the convolutions say that the outputs of a graph are made of.
    #[must_use]
    pub fn of(graph: &Graph) -> Positive {
        let mut found = Positive::default();
        let mut stack: Vec<_> = graph.outputs().iter().map(|o| o.value.node).collect();
        let mut seen = BTreeSet::new();
        while let Some(id) = stack.pop() {
            if !seen.insert(id) {
                continue;
            }
            let node = graph.node(id);
            stack.extend(node.operands().iter().flatten().map(|v| v.node));
            if let Some(op) = node.op() {
                let fact = |i: usize| node.operands().get(i).copied().flatten().and_then(|v| graph.fact(v));
                found.learn(op, [fact(0), fact(1)], graph.fact(Value { node: id, port: 0 }));
            }
        }
        found
    }

    /// What an operator on these operands says that has to run: a convolution fails where its map is empty.
    pub(crate) fn learn(&mut self, op: &Op, operands: [Option<&Fact>; 2], result: Option<&Fact>) {
        let of_result = result.and_then(|y| y.shape.get(2..)).unwrap_or_default().to_vec();
        match op {
            Op::ConvTranspose(_) => of_result.into_iter().for_each(|d| self.insert(d)),
            Op::Conv(c) => {
                of_result.into_iter().for_each(|d| self.insert(d));
                let [Some(x), Some(w)] = operands else { return };
                for (a, size) in x.shape.iter().skip(2).enumerate() {
                    if c.auto_pad != AutoPad::NotSet {
                        self.insert(size.clone());
                        continue;
                    }
                    let place = |list: &[i64], i: usize| list.get(i).copied();
                    let taps = w.shape.get(a + 2).and_then(Dim::as_fixed);
                    let pads = place(&c.pads, a).zip(place(&c.pads, a + c.strides.len()));
                    let (Some(taps), Some((begin, end)), Some(step)) = (taps, pads, place(&c.dilations, a)) else {
                        return;
                    };
                    // The map is at least `least + 1` wide, so that the window fits once.
                    let least = step.saturating_mul(taps - 1).saturating_sub(begin.saturating_add(end));
                    if least >= 0 {
                        self.insert(size + (-least));
                    }
                }
            }
            _ => {}
        }
    }

    fn insert(&mut self, size: Dim) {
        if size.at_least(1).is_none() {
            self.0.insert(size);
        }
    }

    /// Whether a size is at least 1 wherever the model runs. `false` where that is not known.
    #[must_use]
    pub fn holds(&self, size: &Dim) -> bool {
        size.at_least(1) == Some(true) || self.0.iter().any(|known| (size - known).at_least(0) == Some(true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::text::parse;

    #[test]
    fn convolutions_say_which_sizes_are_positive() {
        let graph = parse(
            r#"graph(x: f32[N, 2, H, W]) {
  w: f32[2, 2, 3, 3] = random(1)
  v: f32[2, 2, 1, 1] = random(2)
  begin: i64[1] = [0]
  end: i64[1] = [-2]
  axis: i64[1] = [2]
  %1 = Slice(x, begin, end, axis)
  %2 = Conv(%1, v) {auto_pad="NOTSET", dilations=[1, 1], group=1, pads=[0, 0, 0, 0], strides=[1, 1]}
  %3 = Conv(x, w) {auto_pad="NOTSET", dilations=[1, 1], group=1, pads=[1, 0, 1, 0], strides=[2, 1]}
  return %2 as y, %3 as z
}"#,
        )
        .unwrap();
        let positive = Positive::of(&graph);
        let (h, w) = (Dim::symbol("H"), Dim::symbol("W"));
        let cut = &graph.fact(graph.outputs()[0].value).unwrap().shape[2];
        assert_eq!(cut.at_least(1), None);
        assert!(positive.holds(cut), "a convolution reads the slice");
        assert!(positive.holds(&h) && positive.holds(&w));
        assert!(positive.holds(&(&w - 2)), "3 taps without padding fit");
        assert!(!positive.holds(&(&w - 3)));
        assert!(!positive.holds(&(&h - 3)));
    }
}
