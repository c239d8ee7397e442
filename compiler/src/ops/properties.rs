//! What holds for an operator whatever its operands are. Each operator states it beside its ONNX forms; rules, pricing and
//! folding ask here and match on no names.
//!
//! A property that is not claimed is unknown, never denied. All of them speak of the first result, and of real numbers: of
//! floating-point operands but for rounding, infinities and NaN. Integers wrap around, so signs and orders say nothing of them.

use convc_runtime::{Dim, Fact};

/// Sets of operands for which a property holds. Operands that a set names and a node leaves out count as having it; the first
/// operand of a set has to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operands {
    /// No set is known.
    None,
    /// Each of these sets, all of its operands together.
    Sets(&'static [&'static [usize]]),
    /// All operands together.
    All,
    /// Each operand by itself.
    Each,
}

impl Operands {
    /// The operand of an operator that has only one that counts.
    pub const FIRST: Operands = Operands::Sets(&[&[0]]);

    /// Whether there is a set all of whose operands have a property. `has` tells whether the operand at an index has it, or
    /// `None` where that operand is left out.
    #[must_use]
    pub fn any_set(self, operands: usize, has: impl Fn(usize) -> Option<bool>) -> bool {
        let all = |set: &[usize]| {
            set.first().is_some_and(|&i| has(i) == Some(true)) && set.iter().all(|&i| has(i) != Some(false))
        };
        match self {
            Operands::None => false,
            Operands::Sets(sets) => sets.iter().any(|set| all(set)),
            Operands::All => operands > 0 && (0..operands).all(|i| has(i) == Some(true)),
            Operands::Each => (0..operands).any(|i| has(i) == Some(true)),
        }
    }
}

/// When no element of the result is negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nonnegative {
    /// Always.
    Always,
    /// Where no element of the operands of one set is.
    Where(Operands),
}

/// Where the elements of the result come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Movement {
    /// They are computed.
    Computes,
    /// They are those of operand 0 in the same order: only the shape is another one.
    View,
    /// They are those of operand 0, each of them once.
    Permutes,
    /// Each is one of operand 0's.
    Picks,
    /// Each is one of operand 0's, or a filling.
    Pads,
    /// Each is one of some operand's.
    Joins,
}

/// How an operator goes through memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// It touches no element: bookkeeping.
    None,
    /// It reads and writes one element after the other.
    Streams,
    /// It picks elements one by one, or in another order.
    Picks,
}

/// What one execution takes besides its multiply-adds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Effort {
    /// How it goes through memory.
    pub traffic: Traffic,
    /// Elementary operations for each element of the result, where there are no multiply-adds.
    pub operations: f64,
    /// Whether libraries fuse it into the convolution before it.
    pub fuses: bool,
    /// How many passes over the map it is worth in ONNX Runtime, whose kernels for some functions go element by element.
    pub portable_passes: f64,
}

impl Effort {
    /// Nothing is touched.
    pub const NONE: Effort = Effort { traffic: Traffic::None, ..Effort::STREAMS };
    /// One pass.
    pub const STREAMS: Effort =
        Effort { traffic: Traffic::Streams, operations: 1.0, fuses: false, portable_passes: 1.0 };
    /// One pass in another order.
    pub const PICKS: Effort = Effort { traffic: Traffic::Picks, ..Effort::STREAMS };
    /// One pass that the convolution before it takes over.
    pub const FUSES: Effort = Effort { fuses: true, ..Effort::STREAMS };

    /// One pass that reads so many elements for each it writes.
    #[must_use]
    pub fn window(taps: &[i64]) -> Effort {
        Effort { operations: taps.iter().map(|&k| k as f64).product(), ..Effort::STREAMS }
    }
}

/// Multiply-adds of one execution: those of convolutions and products of matrices. Everything else counts as none,
/// elementwise arithmetic included, as is the custom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MultiplyAdds {
    /// None.
    None,
    /// For each element of the result as many as an element of this operand's first axis has: `Conv`.
    EachResult {
        /// The operand with a row for each result.
        rows: usize,
    },
    /// For each element of operand 0 as many as an element of this operand's first axis has: `ConvTranspose`.
    EachInput {
        /// The operand with a row for each input.
        rows: usize,
    },
    /// For each element of the result as many as operand 0 has along an axis, counted from the front or, negative, from the back.
    Along(isize),
    /// One for each point of the loops of an Einsum equation, times the products at each.
    Equation(String),
}

impl MultiplyAdds {
    /// How many these are; `None` if a size or an operand is not known.
    #[must_use]
    pub fn count(&self, inputs: &[Option<&Fact>], outputs: &[&Fact]) -> Option<Dim> {
        let input = |i: usize| inputs.get(i).copied().flatten();
        let row = |i: usize| Some(Dim::product(input(i)?.shape.iter().skip(1)));
        let results = || outputs.first().map(|f| f.element_count());
        Some(match self {
            MultiplyAdds::None => Dim::from(0),
            MultiplyAdds::EachResult { rows } => &results()? * &row(*rows)?,
            MultiplyAdds::EachInput { rows } => &input(0)?.element_count() * &row(*rows)?,
            MultiplyAdds::Along(axis) => {
                let shape = &input(0)?.shape;
                let axis = if *axis < 0 { shape.len().checked_add_signed(*axis)? } else { axis.unsigned_abs() };
                &results()? * shape.get(axis)?
            }
            MultiplyAdds::Equation(equation) => super::einsum::multiply_adds(equation, inputs)?,
        })
    }
}

/// What holds for an operator.
#[derive(Debug, Clone, PartialEq)]
pub struct Properties {
    /// Whether each element of the result is made of the operands' elements at the same place, once they are broadcast.
    pub elementwise: bool,
    /// Whether the operands may change places without changing a bit.
    pub commutative: bool,
    /// Sets of operands in which it is linear, the others fixed: `f(a x + b y) = a f(x) + b f(y)`.
    pub linear: Operands,
    /// Sets of operands with which the result is 0 where all of them are.
    pub zeros: Operands,
    /// When no element of the result is negative.
    pub nonnegative: Nonnegative,
    /// Whether no element of the result gets smaller where elements of operand 0 get larger.
    pub monotone: bool,
    /// Where the elements of the result come from.
    pub movement: Movement,
    /// Whether the result may jump where a floating-point operand changes by a rounding.
    pub jumps: bool,
    /// Its multiply-adds.
    pub multiply_adds: MultiplyAdds,
    /// What it takes besides.
    pub effort: Effort,
}

impl Properties {
    /// Of an operator of which nothing is claimed: it may even jump.
    #[must_use]
    pub fn unknown() -> Properties {
        Properties {
            elementwise: false,
            commutative: false,
            linear: Operands::None,
            zeros: Operands::None,
            nonnegative: Nonnegative::Where(Operands::None),
            monotone: false,
            movement: Movement::Computes,
            jumps: true,
            multiply_adds: MultiplyAdds::None,
            effort: Effort::STREAMS,
        }
    }

    /// Of one whose result does not jump.
    #[must_use]
    pub fn continuous() -> Properties {
        Properties { jumps: false, ..Properties::unknown() }
    }

    /// Of a function that does not jump, of elements at one place.
    #[must_use]
    pub fn elementwise() -> Properties {
        Properties { elementwise: true, ..Properties::continuous() }
    }

    /// Of one that is linear in these sets of operands, so that it makes 0 of zeros.
    #[must_use]
    pub fn linear(sets: Operands) -> Properties {
        Properties { linear: sets, zeros: sets, ..Properties::continuous() }
    }

    /// Of weighted sums and means of operand 0 whose weights are not negative.
    #[must_use]
    pub fn averages() -> Properties {
        Properties {
            nonnegative: Nonnegative::Where(Operands::FIRST),
            monotone: true,
            ..Properties::linear(Operands::FIRST)
        }
    }

    /// Of one that takes the elements of its result from the operands of one set.
    #[must_use]
    pub fn moves(movement: Movement, from: Operands) -> Properties {
        Properties { nonnegative: Nonnegative::Where(from), monotone: true, movement, ..Properties::linear(from) }
    }

    /// Of one that only changes the shape of operand 0.
    #[must_use]
    pub fn view() -> Properties {
        Properties { effort: Effort::NONE, ..Properties::moves(Movement::View, Operands::FIRST) }
    }
}

#[cfg(test)]
mod tests {
    use convc_runtime::DType;

    use super::*;

    fn fact(shape: &[&str]) -> Fact {
        Fact::new(DType::F32, shape.iter().map(|d| Dim::parse(d).unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn a_grouped_convolution_sees_a_part_of_the_channels() {
        let (x, w, y) = (fact(&["N", "8", "H", "W"]), fact(&["16", "2", "3", "3"]), fact(&["N", "16", "H", "W"]));
        let n = MultiplyAdds::EachResult { rows: 1 }.count(&[Some(&x), Some(&w)], &[&y]).unwrap();
        assert_eq!(n, Dim::parse("288*H*N*W").unwrap());
    }

    #[test]
    fn an_axis_counts_from_either_end() {
        let (a, y) = (fact(&["3", "5"]), fact(&["5", "7"]));
        let along = |axis| MultiplyAdds::Along(axis).count(&[Some(&a)], &[&y]);
        assert_eq!((along(0), along(-1)), (Some(Dim::from(105)), Some(Dim::from(175))));
        assert_eq!((along(2), along(-3)), (None, None));
    }

    #[test]
    fn a_set_holds_where_its_first_operand_is_there() {
        let sets = Operands::Sets(&[&[1, 2], &[0, 2]]);
        let given = |has: [Option<bool>; 3]| sets.any_set(3, |i| has[i]);
        assert!(given([None, Some(true), None]) && given([Some(true), Some(false), Some(true)]));
        assert!(!given([None; 3]) && !given([Some(true), None, Some(false)]));
        assert!(!Operands::None.any_set(1, |_| Some(true)) && !Operands::All.any_set(2, |i| (i == 0).then_some(true)));
        assert!(Operands::Each.any_set(2, |i| Some(i == 1)) && !Operands::Each.any_set(0, |_| Some(true)));
    }
}
