//! The arithmetic that decides how long a run takes: products of matrices and convolutions of f32 and f64.
//!
//! **One order of summation.** Every element of a result is `((0 + a0*b0) + a1*b1) + ..` in the order that its function
//! documents, each product and each sum rounded by itself (no fused multiply-add), a bias added last. Vectors run
//! across elements of the result, never along a sum, so that neither the instruction set, nor the number of threads, nor the
//! blocking changes a bit of it.

mod conv;
mod conv_transpose;
mod depthwise;
mod matmul;
mod scratch;
// The vectors are associated types of a public trait, but cannot be named from outside.
#[allow(unreachable_pub)]
mod simd;

pub use conv::Convolution;
pub use conv_transpose::TransposedConvolution;
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
pub trait Gemm: Scalar + Element + bytemuck::Pod + sealed::Vectors {}
impl Gemm for f32 {}
impl Gemm for f64 {}

mod sealed {
    use super::{
        Isa,
        simd::{Quad, Vector},
    };

    /// The vectors of an element type.
    #[allow(unreachable_pub)]
    pub trait Vectors: Sized {
        /// Under [`Isa::Portable`].
        type Portable: Vector<T = Self>;
        /// Under [`Isa::Avx2`].
        type Avx2: Vector<T = Self>;
        /// Under [`Isa::Avx512`].
        type Avx512: Vector<T = Self>;

        /// Elements of a vector.
        fn lanes(isa: Isa) -> usize {
            match isa {
                Isa::Portable => Self::Portable::LANES,
                Isa::Avx2 => Self::Avx2::LANES,
                Isa::Avx512 => Self::Avx512::LANES,
            }
        }

        /// Vectors across a register tile.
        fn columns(isa: Isa) -> usize {
            match isa {
                Isa::Portable => Self::Portable::COLUMNS,
                Isa::Avx2 => Self::Avx2::COLUMNS,
                Isa::Avx512 => Self::Avx512::COLUMNS,
            }
        }
    }

    macro_rules! vectors {
        ($t:ty: $avx2:ident, $avx512:ident) => {
            impl Vectors for $t {
                type Portable = Quad<$t>;
                #[cfg(target_arch = "x86_64")]
                type Avx2 = super::simd::x86::$avx2;
                #[cfg(target_arch = "x86_64")]
                type Avx512 = super::simd::x86::$avx512;
                #[cfg(not(target_arch = "x86_64"))]
                type Avx2 = Quad<$t>;
                #[cfg(not(target_arch = "x86_64"))]
                type Avx512 = Quad<$t>;
            }
        };
    }
    vectors!(f32: F32x8, F32x16);
    vectors!(f64: F64x4, F64x8);
}
