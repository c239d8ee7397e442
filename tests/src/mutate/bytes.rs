//! Mutations that know nothing of the format.

use super::Random;

/// Changes one to six places of `b`, half of them near its ends, where little of it is weights.
pub fn mutate_bytes(b: &mut Vec<u8>, r: &mut Random) {
    const SNIPPETS: &[&[u8]] = &[
        &[0x0b],
        &[0x0c],
        &[0x7e],
        &[0],
        &[0xff; 10],
        &[0x80, 0],
        &[0x3a, 0],
        &[0xc8, 0xab, 0x30, 1],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
    ];
    for _ in 0..=r.below(6) {
        if b.is_empty() {
            return;
        }
        let near = b.len().min(2048);
        let at = match r.below(4) {
            0 => r.below(near),
            1 => b.len() - 1 - r.below(near),
            _ => r.below(b.len()),
        };
        let [byte, ..] = r.number().to_le_bytes();
        match r.below(14) {
            0 => b[at] = byte,
            1 => b[at] ^= 1 << (byte % 8),
            2 => {
                let snippet = *r.pick(SNIPPETS).unwrap_or(&&[][..]);
                b.splice(at..at, snippet.iter().copied());
            }
            3 => drop(b.drain(at..b.len().min(at + 1 + r.below(20)))),
            4 => b.truncate(at),
            5 => {
                let from = r.below(b.len());
                let copy = b[from..b.len().min(from + 1 + r.below(64))].to_vec();
                b.splice(at..at, copy);
            }
            6 => b[at] = b[at].wrapping_add(1),
            _ => b[at] = 0xff,
        }
    }
}
