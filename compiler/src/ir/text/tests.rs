use convc_runtime::{DType, Dim};
use proptest::prelude::*;

use super::{Generator, parse, print};
use crate::ir::verify;

const BLOCK: &str = r#"
# A residual block.
graph(x: f32[N, 8, 14, 'my W'], flag: bool[2] = [1, 0]) {
  w: f32[8, 8, 3, 3] = random(3)
  b: f32[8] = [0.0, 1.5, -2.25, 3e-5, 0.5, 0.125, -0.0, 1e30]
  axes: i64[1] = [-1]
  variance: f32[12] = positive(2)
  %1 = Conv(x, w, b) {auto_pad="NOTSET", dilations=[1, 1], group=1, pads=[1, 1, 1, 1], strides=[1, 1]} : f32[N, 8, 14, 'my W']
  %2 = Relu(%1) : f32[N, 8, 14, 'my W']
  %3 = Clip(%2, _, _)
  "odd name" = Add(%3, x)
  shape: i64[2] = [2, 3]
  %5 = ConstantOfShape(shape) {value=f32[1] = [7.0]}
  return "odd name" as y, %5 as "the rest", %2 as z
}
"#;

#[test]
fn a_text_comes_back() {
    let graph = parse(BLOCK).unwrap();
    verify(&graph).unwrap();
    assert_eq!(graph.outputs().len(), 3);
    let text = print(&graph);
    assert_eq!(print(&parse(&text).unwrap()), text);
    assert!(text.contains("w: f32[8, 8, 3, 3] = random(3)"), "{text}");
    assert!(text.contains("value=f32[1] = [7.0]"), "{text}");
    assert!(text.contains("flag: bool[2] = [1, 0]"), "{text}");
    assert!(text.contains("f32[N, 8, 14, 'my W']"), "{text}");
}

#[test]
fn errors_say_where() {
    for (text, at, problem) in [
        ("", (1, 1), "\"graph\" is expected"),
        ("graph(x: f33[1]) {", (1, 10), "\"f33\" is no element type"),
        ("graph(x: f32[1, 2*]) {", (1, 17), "\"2*\""),
        ("graph(x: f32[1]) {\n  %1 = Relu(z)\n", (2, 13), "z is not defined"),
        ("graph(x: f32[1]) {\n  %1 = Reluu(x)\n", (2, 8), "operator Reluu"),
        ("graph(x: f32[1]) {\n  %1 = Relu(x) : f32[2]\n", (2, 18), "f32[2] is given, f32[1] follows"),
        ("graph(x: f32[1]) {\n  %1 = Softmax(x)\n", (2, 8), "axis"),
        ("graph(x: f32[1]) {\n  %1 = Softmax(x) {axis=0, axis=0}\n", (2, 8), "given twice"),
        ("graph(x: f32[1]) {\n  x = Relu(x)\n", (2, 3), "x is defined twice"),
        ("graph(x: f32[1]) {\n  c: f32[2] = [1]\n", (2, 15), "not the elements of a f32[2]"),
        ("graph(x: f32[1]) {\n  c: f32[N] = zeros\n", (2, 6), "sizes are fixed"),
        ("graph(x: f32[1]) {\n  c: f32[9000000000000000000, 9] = zeros\n", (2, 36), "not the elements"),
        ("graph(x: f32[1]) {\n  c: f32[1] = randm(1)\n", (2, 15), "none of the generators"),
        ("graph(x: f32[1]) {\n  c: f32[1] = random(-1)\n", (2, 22), "a seed"),
        ("graph(x: f32[1]) {\n  \"c: f32[1]", (2, 3), "does not end"),
        ("graph(x: f32[1]) {\n  %1, %2 = Relu(x)\n", (2, 3), "1 output"),
        ("graph(x: f32[1]) { return x as y }\n!", (2, 1), "the end"),
        ("graph(x: f32[1]) { return x as y, x as y }", (1, 40), "two outputs"),
    ] {
        let e = parse(text).err().unwrap_or_else(|| panic!("{text:?} is read"));
        assert_eq!((e.line, e.column), at, "{text:?}: {e}");
        assert!(e.problem.contains(problem), "{text:?}: {e}");
    }
}

#[test]
fn generators_keep_to_their_ranges() {
    let t = Generator::Random(7).tensor(DType::F32, &[1000]).unwrap();
    let v = t.to_f64s().unwrap();
    assert!(v.iter().all(|x| (-1.0..=1.0).contains(x) && (x * 8.0).fract() == 0.0));
    assert!(v.contains(&-1.0) && v.contains(&1.0));
    let t = Generator::Positive(7).tensor(DType::I32, &[1000]).unwrap();
    assert!(t.to_i64s().unwrap().iter().all(|x| (1..=16).contains(x)));
    assert_eq!(Generator::Ones.tensor(DType::I64, &[2]).unwrap().to_i64s(), Some(vec![1, 1]));
}

proptest! {
    /// No text makes the parser panic.
    #[test]
    fn broken_texts_are_errors(at in 0..BLOCK.len(), drop in 0usize..8, insert in "[ -~é]{0,3}") {
        let at = (0..=at).rev().find(|&i| BLOCK.is_char_boundary(i)).unwrap();
        let end = (at + drop).min(BLOCK.len());
        let end = (end..=BLOCK.len()).find(|&i| BLOCK.is_char_boundary(i)).unwrap();
        let text = format!("{}{insert}{}", &BLOCK[..at], &BLOCK[end..]);
        if let Ok(graph) = parse(&text) {
            assert!(print(&graph).starts_with("graph("));
        }
    }

    #[test]
    fn dims_come_back(a in 1i64..9, b in 0i64..5, s in 1i64..4) {
        let dim = (Dim::symbol("H") * a + b).floor_div(&Dim::from(s)).maximum(&Dim::symbol("?odd, one]"));
        let text = format!("graph(x: f32[{dim}, 2]) {{ return x as y }}");
        let graph = parse(&text).unwrap();
        let x = graph.inputs()[0];
        prop_assert_eq!(&graph.fact(x).unwrap().shape[0], &dim);
    }
}
