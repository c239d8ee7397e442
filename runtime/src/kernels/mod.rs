//! The arithmetic that decides how long a run takes: products of matrices and convolutions of f32 and f64.
//!
//! **One order of summation.** Every element of a result is `((0 + a0*b0) + a1*b1) + ..` in the order that its function
//! documents, each product and each sum rounded by itself (no fused multiply-add), a bias added last. Vectors run
//! across elements of the result, never along a sum, so that neither the instruction set, nor the number of threads, nor the
//! blocking changes a bit of it.

mod matmul;

pub use matmul::gemm;

use crate::{Element, scalar::Scalar};

/// The instruction sets that kernels are compiled for, from the least to the most capable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// What the compilation target always has.
    Portable,
    /// x86-64 with AVX2.
    Avx2,
    /// x86-64 with AVX-512F.
    Avx512,
}

impl Isa {
    /// Every instruction set, ascending.
    pub const ALL: &'static [Isa] = &[Isa::Portable, Isa::Avx2, Isa::Avx512];

    /// The most capable instruction set of this machine.
    #[must_use]
    pub fn detect() -> Isa {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return Isa::Avx512;
            }
            if is_x86_feature_detected!("avx2") {
                return Isa::Avx2;
            }
        }
        Isa::Portable
    }

    /// This instruction set, or the best one that the machine has if it lacks this one.
    #[must_use]
    pub fn available(self) -> Isa {
        self.min(Isa::detect())
    }

    /// The name, as options spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        }
    }

    /// The instruction set of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Isa> {
        Isa::ALL.iter().copied().find(|isa| isa.name() == name)
    }
}

/// A type that the kernels compute in: f32 and f64.
pub trait Gemm: Scalar + Element {}
impl Gemm for f32 {}
impl Gemm for f64 {}
