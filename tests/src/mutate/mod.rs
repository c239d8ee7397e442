//! Mutations of models: of their bytes, and of the messages that the bytes stand for. Everything follows from a seed.

mod bytes;
mod messages;

use onnx_protobuf::{Message, ModelProto};

pub use bytes::mutate_bytes;
pub use messages::mutate_message;

/// A generator of random numbers (SplitMix64) whose sequence no library changes.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The generator of case `case` under `seed`.
    #[must_use]
    pub fn new(seed: u64, case: u64) -> Random {
        let mut r = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ case);
        r.number();
        r
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is 0 if `n` is.
    pub fn below(&mut self, n: usize) -> usize {
        let n = u64::try_from(n).unwrap_or(u64::MAX);
        if n == 0 { 0 } else { usize::try_from(self.number() % n).unwrap_or(0) }
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of `list`.
    pub fn pick<'l, T>(&mut self, list: &'l [T]) -> Option<&'l T> {
        list.get(self.below(list.len()))
    }

    /// An integer of the kind that breaks programs.
    pub fn integer(&mut self) -> i64 {
        const ODD: &[i64] = &[
            0,
            1,
            -1,
            2,
            3,
            7,
            -2,
            64,
            1000,
            65_536,
            1 << 20,
            1 << 31,
            (1 << 31) - 1,
            1 << 32,
            1 << 40,
            1 << 62,
            i64::MAX,
            i64::MIN,
            i64::MIN + 1,
            i64::MAX - 1,
        ];
        if self.one_in(3) {
            i64::from_ne_bytes(self.number().to_ne_bytes()) % 17
        } else {
            *self.pick(ODD).unwrap_or(&0)
        }
    }
}

/// One mutated model: of `model`, which was read from `bytes`.
#[must_use]
pub fn mutated(bytes: &[u8], model: &ModelProto, r: &mut Random) -> Vec<u8> {
    let kind = r.below(5);
    if kind == 0 {
        let mut b = bytes.to_vec();
        mutate_bytes(&mut b, r);
        return b;
    }
    let mut m = model.clone();
    // One change leaves more of a model to go wrong later than several do.
    let changes = if r.one_in(3) { 4 } else { 1 };
    for _ in 0..changes {
        mutate_message(&mut m, r);
    }
    let mut b = m.write_to_bytes().unwrap_or_default();
    if kind == 1 {
        mutate_bytes(&mut b, r);
    }
    b
}
