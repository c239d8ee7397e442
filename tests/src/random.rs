//! Random graphs in text form, each from the left side of a rule: shapes that satisfy its conditions and shapes that just fail to.

mod activations;
mod attention;
mod border;
mod bounds;
mod channels;
mod conv;
mod indices;
mod involution;
mod mixed;
mod mixed_algebra;
mod permute;
mod plain;
mod pooling;
mod products;
mod shape;
mod siblings;
mod space_to_depth;
mod systems;

use std::fmt::Write;

pub use activations::*;
pub use attention::*;
pub use border::*;
pub use bounds::*;
pub use channels::*;
pub use conv::*;
pub use indices::*;
pub use involution::*;
pub use mixed::*;
pub use mixed_algebra::*;
pub use permute::*;
pub use plain::*;
pub use pooling::*;
pub use products::*;
pub use shape::*;
pub use siblings::*;
pub use space_to_depth::*;
pub use systems::*;

/// A sequence of numbers that depends on its seed alone.
pub struct Rng(u64);

impl Rng {
    /// The sequence of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5851_F42D_4C95_7F2D)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut h = self.0;
        h = (h ^ (h >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        h = (h ^ (h >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        h ^ (h >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub fn range(&mut self, low: i64, high: i64) -> i64 {
        low + (self.next() % (high - low + 1).unsigned_abs()) as i64
    }

    /// Whether something of this percentage comes to pass.
    pub fn chance(&mut self, percent: i64) -> bool {
        self.range(0, 99) < percent
    }

    /// One of several.
    pub fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.range(0, of.len() as i64 - 1) as usize].clone()
    }

    /// One of a number's divisors.
    pub fn divisor(&mut self, n: i64) -> i64 {
        let all: Vec<i64> = (1..=n).filter(|d| n % d == 0).collect();
        self.pick(&all)
    }
}

/// A graph's text in the making.
struct Text {
    inputs: Vec<String>,
    body: String,
    values: usize,
    seed: u64,
    dtype: &'static str,
}

impl Text {
    fn new(rng: &mut Rng, dtype: &'static str) -> Text {
        Text { inputs: Vec::new(), body: String::new(), values: 0, seed: rng.next() % 1_000_000, dtype }
    }

    fn input(&mut self, shape: &[String]) -> String {
        let name = format!("x{}", self.inputs.len());
        self.inputs.push(format!("{name}: {}[{}]", self.dtype, shape.join(", ")));
        name
    }

    fn constant_of(&mut self, dtype: &str, shape: &[i64], literal: &str) -> String {
        self.values += 1;
        let name = format!("c{}", self.values);
        let _ = writeln!(self.body, "  {name}: {dtype}{shape:?} = {literal}");
        name
    }

    /// Random numbers.
    fn random(&mut self, shape: &[i64]) -> String {
        self.seed += 1;
        self.constant_of(self.dtype, shape, &format!("random({})", self.seed))
    }

    /// Random numbers above 0.
    fn positive(&mut self, shape: &[i64]) -> String {
        self.positive_of(self.dtype, shape)
    }

    fn positive_of(&mut self, dtype: &str, shape: &[i64]) -> String {
        self.seed += 1;
        self.constant_of(dtype, shape, &format!("positive({})", self.seed))
    }

    fn ints(&mut self, v: &[i64]) -> String {
        self.constant_of("i64", &[v.len() as i64], &format!("{v:?}"))
    }

    fn op(&mut self, name: &str, operands: &[&str], attributes: &str) -> String {
        self.values += 1;
        let _ = writeln!(self.body, "  %{} = {name}({}) {{{attributes}}}", self.values, operands.join(", "));
        format!("%{}", self.values)
    }

    fn finish(self, output: &str) -> String {
        format!("graph({}) {{\n{}  return {output} as y\n}}\n", self.inputs.join(", "), self.body)
    }
}

/// A map's shape: `[batch, channels, sizes..]`, some of it symbols.
struct MapShape {
    batch: String,
    channels: i64,
    sizes: Vec<String>,
}

impl MapShape {
    fn spatial(&self) -> usize {
        self.sizes.len()
    }

    fn dims(&self) -> Vec<String> {
        [self.batch.clone(), self.channels.to_string()].into_iter().chain(self.sizes.iter().cloned()).collect()
    }
}

/// A map of 1 to 3 spatial axes; every third has symbols for its batch and sizes, which are at most 11.
fn map(rng: &mut Rng, channels: i64) -> MapShape {
    let spatial = rng.pick(&[1, 1, 1, 2, 2, 2, 2, 3]);
    let most = [11, 11, 8, 5][spatial as usize];
    let symbolic = rng.chance(33);
    let batch = if symbolic && rng.chance(70) {
        "N".to_owned()
    } else if rng.chance(3) {
        "0".to_owned()
    } else {
        rng.range(1, 3).to_string()
    };
    let sizes = (0..spatial)
        .map(|a| {
            if symbolic && rng.chance(70) {
                ["H", "W", "D"][a as usize].to_owned()
            } else {
                rng.range(1, most).to_string()
            }
        })
        .collect();
    MapShape { batch, channels, sizes }
}

/// A tensor of `least` to 4 axes, some of whose sizes are symbols: its name and its shape.
fn tensor(rng: &mut Rng, t: &mut Text, least: i64) -> (String, Vec<String>) {
    let symbolic = rng.chance(40);
    let shape: Vec<String> = (0..rng.range(least, 4))
        .map(|a| {
            if symbolic && rng.chance(60) {
                ["N", "H", "W", "D"][a as usize].to_owned()
            } else if rng.chance(4) {
                "0".to_owned()
            } else {
                rng.range(1, 4).to_string()
            }
        })
        .collect();
    (t.input(&shape), shape)
}

/// The value, or at this percentage one of it whose elements are not known to be finite.
fn unbounded(rng: &mut Rng, t: &mut Text, x: String, percent: i64) -> String {
    if rng.chance(percent) { t.op("Exp", &[&x], "") } else { x }
}

/// A map of `c` channels that is computed from `x`, whose elements are finite if those of `x` are that are read; now and then
/// one of which that is not known.
fn computed(rng: &mut Rng, t: &mut Text, x: String, c: i64, spatial: usize) -> String {
    match rng.range(0, 7) {
        0 => x,
        1 => t.op("Exp", &[&x], ""),
        _ => {
            let kernel: Vec<i64> = [c, c].into_iter().chain(vec![1; spatial]).collect();
            let w = t.random(&kernel);
            let (ones, zeros) = (vec![1; spatial], vec![0; 2 * spatial]);
            let window = format!("auto_pad=\"NOTSET\", dilations={ones:?}, group=1, pads={zeros:?}, strides={ones:?}");
            t.op("Conv", &[&x, &w], &window)
        }
    }
}

/// The size that a text says, 1 for a symbol.
fn fixed(d: &str) -> i64 {
    d.parse().unwrap_or(1)
}
