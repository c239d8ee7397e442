//! Blocks of networks as text.

/// Blocks of networks, in which rules work on what other rules made.
pub const BLOCKS: &[(&str, &str)] = &[
    (
        "MobileOne: two depthwise branches, a scale branch and a skip, each normalised; then the pointwise half",
        r#"graph(x: f32[N, 4, H, W]) {
  w1: f32[4, 1, 3, 3] = random(1)
  w2: f32[4, 1, 3, 3] = random(2)
  w3: f32[4, 1, 1, 1] = random(3)
  g: f32[4] = random(4)
  h: f32[4] = random(5)
  m: f32[4] = random(6)
  s: f32[4] = positive(7)
  %1 = Conv(x, w1) {auto_pad="NOTSET", dilations=[1, 1], group=4, pads=[1, 1, 1, 1], strides=[1, 1]}
  %2 = BatchNormalization(%1, g, h, m, s) {epsilon=1e-5}
  %3 = Conv(x, w2) {auto_pad="NOTSET", dilations=[1, 1], group=4, pads=[1, 1, 1, 1], strides=[1, 1]}
  %4 = BatchNormalization(%3, h, m, g, s) {epsilon=1e-5}
  %5 = Conv(x, w3) {auto_pad="NOTSET", dilations=[1, 1], group=4, pads=[0, 0, 0, 0], strides=[1, 1]}
  %6 = BatchNormalization(%5, m, g, h, s) {epsilon=1e-5}
  %7 = BatchNormalization(x, g, g, h, s) {epsilon=1e-5}
  %8 = Add(%2, %4)
  %9 = Add(%8, %6)
  %10 = Add(%9, %7)
  %11 = Relu(%10)
  v: f32[3, 4, 1, 1] = random(8)
  u: f32[3, 4, 1, 1] = random(9)
  k: f32[3] = random(10)
  q: f32[3] = positive(11)
  %12 = Conv(%11, v) {auto_pad="NOTSET", dilations=[1, 1], group=1, pads=[0, 0, 0, 0], strides=[1, 1]}
  %13 = BatchNormalization(%12, k, k, k, q) {epsilon=1e-5}
  %14 = Conv(%11, u) {auto_pad="NOTSET", dilations=[1, 1], group=1, pads=[0, 0, 0, 0], strides=[1, 1]}
  %15 = BatchNormalization(%14, q, k, k, q) {epsilon=1e-5}
  %16 = Add(%13, %15)
  return %16 as y
}"#,
    ),
    (
        "DO-Conv's feature form, normalised and added to its input",
        r#"graph(x: f32[N, 2, H, W]) {
  d: f32[18, 1, 3, 3] = random(1)
  w: f32[2, 18, 1, 1] = random(2)
  g: f32[2] = random(3)
  h: f32[2] = random(4)
  m: f32[2] = random(5)
  s: f32[2] = positive(6)
  %1 = Conv(x, d) {auto_pad="NOTSET", dilations=[1, 1], group=2, pads=[1, 1, 1, 1], strides=[1, 1]}
  %2 = Conv(%1, w) {auto_pad="NOTSET", dilations=[1, 1], group=1, pads=[0, 0, 0, 0], strides=[1, 1]}
  %3 = BatchNormalization(%2, g, h, m, s) {epsilon=1e-5}
  %4 = Add(%3, x)
  return %4 as y
}"#,
    ),
    (
        "A chain of pointwise, padded and grouped convolutions with scales and shifts between",
        r#"graph(x: f32[N, 4, H, W]) {
  pads: i64[8] = [0, 0, 1, 0, 0, 0, 1, 2]
  a: f32[4, 4, 1, 1] = random(1)
  b: f32[4, 2, 3, 3] = random(2)
  c: f32[6, 4, 1, 1] = random(3)
  e: f32[6] = random(4)
  t: f32[4, 1, 1] = random(5)
  f: f32[1, 4, 1, 1] = positive(6)
  two: f32[] = [2.0]
  %1 = Pad(x, pads) {mode="constant"}
  %2 = Conv(%1, a) {auto_pad="NOTSET", dilations=[1, 1], group=1, pads=[0, 0, 0, 0], strides=[1, 1]}
  %3 = Mul(%2, f)
  %4 = Conv(%3, b) {auto_pad="NOTSET", dilations=[1, 1], group=2, pads=[1, 1, 1, 1], strides=[2, 1]}
  %5 = Sub(t, %4)
  %6 = Div(%5, two)
  %7 = Conv(%6, c, e) {auto_pad="NOTSET", dilations=[1, 1], group=1, pads=[0, 0, 0, 0], strides=[1, 1]}
  return %7 as y
}"#,
    ),
];
