//! What holds for the functions of one argument.

use convc_runtime::ops::{Unary, unary::UnaryKind};

use super::properties::{Effort, Nonnegative, Operands, Properties};

/// A function that does not decrease, whose value at 0 is 0.
fn rises() -> Properties {
    Properties {
        zeros: Operands::FIRST,
        nonnegative: Nonnegative::Where(Operands::FIRST),
        monotone: true,
        ..Properties::elementwise()
    }
}

/// One whose value at 0 is 0.
fn through_zero() -> Properties {
    Properties { zeros: Operands::FIRST, ..Properties::elementwise() }
}

/// One that is never negative.
fn positive(monotone: bool) -> Properties {
    Properties { nonnegative: Nonnegative::Always, monotone, ..Properties::elementwise() }
}

/// The properties of `f`.
pub(super) fn properties(f: &Unary) -> Properties {
    use UnaryKind as K;
    let at_least_0 = |parameter: Option<f32>| parameter.is_some_and(|v| v >= 0.0);
    match f.kind {
        K::Relu => Properties { nonnegative: Nonnegative::Always, effort: Effort::FUSES, ..rises() },
        // Below 0 a negative slope leads up again.
        K::LeakyRelu | K::Elu => Properties { monotone: at_least_0(f.alpha), ..rises() },
        K::Selu if at_least_0(f.beta) => Properties { monotone: at_least_0(f.alpha), ..rises() },
        K::Selu => through_zero(),
        K::Celu if f.alpha.is_some_and(|a| a > 0.0) => rises(),
        K::Celu => Properties::elementwise(),
        K::ThresholdedRelu if at_least_0(f.alpha) => {
            Properties { nonnegative: Nonnegative::Always, jumps: true, ..rises() }
        }
        K::ThresholdedRelu => Properties { jumps: true, ..through_zero() },
        K::HardSigmoid => positive(at_least_0(f.alpha)),
        K::HardSwish => Properties { monotone: false, ..rises() },
        K::Swish => Properties { monotone: false, effort: passes(4.0), ..rises() },
        K::Mish => Properties { monotone: false, effort: passes(20.0), ..rises() },
        K::Softplus => Properties { effort: passes(20.0), ..positive(true) },
        K::Sigmoid | K::Exp => positive(true),
        K::Acosh => positive(true),
        K::Cosh => positive(false),
        K::Sqrt => Properties { nonnegative: Nonnegative::Always, ..rises() },
        K::Abs => Properties { nonnegative: Nonnegative::Always, ..through_zero() },
        K::Softsign | K::Tanh | K::Erf | K::Asin | K::Atan | K::Sinh | K::Asinh | K::Atanh => rises(),
        K::Sign | K::Floor | K::Ceil | K::Round => Properties { jumps: true, ..rises() },
        K::Log => Properties { monotone: true, ..Properties::elementwise() },
        K::Neg => Properties { elementwise: true, ..Properties::linear(Operands::FIRST) },
        K::Sin | K::Tan => through_zero(),
        K::Reciprocal | K::Cos | K::Acos => Properties::elementwise(),
        K::Shrink => Properties { jumps: true, ..Properties::elementwise() },
    }
}

/// A function that ONNX Runtime computes element by element, which takes it as long as so many passes.
fn passes(portable_passes: f64) -> Effort {
    Effort { portable_passes, ..Effort::STREAMS }
}
