//! Tensors as operators see them: a shape and typed, shared, row-major elements.

use std::sync::Arc;

use half::{bf16, f16};

use crate::{Blob, DType, dim::element_count, error::TensorError, scalar::Field};

macro_rules! storage {
    ($($variant:ident $t:ty => $dtype:expr,)*) => {
        /// The elements of a [`Tensor`], by the type they are stored in.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Data { $(
            #[doc = concat!("Elements of `", stringify!($t), "`.")]
            $variant(Arc<Vec<$t>>),
        )* }

        impl Data {
            /// Number of elements.
            #[must_use]
            pub fn len(&self) -> usize {
                match self { $(Data::$variant(v) => v.len(),)* }
            }

            /// Whether there are none.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// The ONNX type of this storage; field elements stand for f32.
            #[must_use]
            pub fn dtype(&self) -> DType {
                match self { $(Data::$variant(_) => $dtype,)* }
            }
        }

        $(impl Element for $t {
            const DTYPE: DType = $dtype;
            fn wrap(elements: Vec<Self>) -> Data {
                Data::$variant(Arc::new(elements))
            }
            fn of(data: &Data) -> Option<&[Self]> {
                match data { Data::$variant(v) => Some(v), _ => None }
            }
            fn take(data: Data) -> Option<Vec<Self>> {
                match data { Data::$variant(v) => Some(Arc::try_unwrap(v).unwrap_or_else(|v| v.to_vec())), _ => None }
            }
        })*
    };
}

/// A type that [`Data`] can hold.
pub trait Element: Clone + PartialEq + std::fmt::Debug + Default + Send + Sync + 'static {
    /// The ONNX type it stores.
    const DTYPE: DType;
    /// Makes these elements a [`Data`].
    fn wrap(elements: Vec<Self>) -> Data;
    /// The elements of `data`, if it stores this type.
    fn of(data: &Data) -> Option<&[Self]>;
    /// The elements of `data` by value, copied only if they are shared.
    fn take(data: Data) -> Option<Vec<Self>>;
}

storage! {
    F32 f32 => DType::F32,
    F64 f64 => DType::F64,
    F16 f16 => DType::F16,
    BF16 bf16 => DType::BF16,
    I8 i8 => DType::I8,
    I16 i16 => DType::I16,
    I32 i32 => DType::I32,
    I64 i64 => DType::I64,
    U8 u8 => DType::U8,
    U16 u16 => DType::U16,
    U32 u32 => DType::U32,
    U64 u64 => DType::U64,
    Bool bool => DType::Bool,
    Str String => DType::Str,
    Field Field => DType::F32,
}

/// Runs `$body` with `$v: &[T]` for whatever type `$data` stores: for operators that only move elements.
#[macro_export]
macro_rules! match_any {
    ($data:expr, $v:ident => $body:expr) => {
        match $data {
            $crate::Data::F32($v) => $body,
            $crate::Data::F64($v) => $body,
            $crate::Data::F16($v) => $body,
            $crate::Data::BF16($v) => $body,
            $crate::Data::I8($v) => $body,
            $crate::Data::I16($v) => $body,
            $crate::Data::I32($v) => $body,
            $crate::Data::I64($v) => $body,
            $crate::Data::U8($v) => $body,
            $crate::Data::U16($v) => $body,
            $crate::Data::U32($v) => $body,
            $crate::Data::U64($v) => $body,
            $crate::Data::Bool($v) => $body,
            $crate::Data::Str($v) => $body,
            $crate::Data::Field($v) => $body,
        }
    };
}

/// Runs `$body` with `$v: &[T]`, `T: Scalar`, for a tensor of real numbers; `$other` for every other storage.
#[macro_export]
macro_rules! match_real {
    ($data:expr, $v:ident => $body:expr, else $other:expr) => {
        match $data {
            $crate::Data::F32($v) => $body,
            $crate::Data::F64($v) => $body,
            $crate::Data::F16($v) => $body,
            $crate::Data::BF16($v) => $body,
            $crate::Data::Field($v) => $body,
            _ => $other,
        }
    };
}

/// Runs `$body` with `$v: &[T]` for the primitive integer types; `$other` for every other storage.
#[macro_export]
macro_rules! match_integer {
    ($data:expr, $v:ident => $body:expr, else $other:expr) => {
        match $data {
            $crate::Data::I8($v) => $body,
            $crate::Data::I16($v) => $body,
            $crate::Data::I32($v) => $body,
            $crate::Data::I64($v) => $body,
            $crate::Data::U8($v) => $body,
            $crate::Data::U16($v) => $body,
            $crate::Data::U32($v) => $body,
            $crate::Data::U64($v) => $body,
            _ => $other,
        }
    };
}

/// What stands for the model's floating-point numbers during a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Real {
    /// Each type as it is.
    #[default]
    Native,
    /// f64 stands for f32, f16 and bf16.
    F64,
    /// Field elements stand for every floating-point type.
    Field,
}

/// A dense tensor. Cloning shares the elements.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Data,
}

impl Tensor {
    /// A tensor of `shape` with these row-major elements.
    ///
    /// # Errors
    /// If the number of elements is not the product of `shape`.
    pub fn new<T: Element>(shape: impl Into<Vec<usize>>, elements: Vec<T>) -> Result<Tensor, TensorError> {
        Tensor::from_data(shape, T::wrap(elements))
    }

    /// A tensor of `shape` over existing storage.
    ///
    /// # Errors
    /// If the number of elements is not the product of `shape`.
    pub fn from_data(shape: impl Into<Vec<usize>>, data: Data) -> Result<Tensor, TensorError> {
        let shape = shape.into();
        match element_count(&shape) {
            Some(n) if n == data.len() => Ok(Tensor { shape, data }),
            _ => Err(TensorError::ElementCount { shape, elements: data.len() }),
        }
    }

    /// A rank-0 tensor.
    pub fn scalar<T: Element>(v: T) -> Tensor {
        Tensor { shape: Vec::new(), data: T::wrap(vec![v]) }
    }

    /// A rank-1 tensor.
    pub fn vector<T: Element>(v: Vec<T>) -> Tensor {
        Tensor { shape: vec![v.len()], data: T::wrap(v) }
    }

    /// The sizes.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of dimensions.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The storage.
    #[must_use]
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// The storage by value.
    #[must_use]
    pub fn into_data(self) -> Data {
        self.data
    }

    /// The ONNX type of the storage.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.data.dtype()
    }

    /// The elements, if they are stored as `T`.
    #[must_use]
    pub fn as_slice<T: Element>(&self) -> Option<&[T]> {
        T::of(&self.data)
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    /// If the number of elements differs.
    pub fn reshaped(&self, shape: impl Into<Vec<usize>>) -> Result<Tensor, TensorError> {
        Tensor::from_data(shape, self.data.clone())
    }

    /// The elements of an integer or boolean tensor as i64; `None` for other types or a u64 beyond i64.
    #[must_use]
    pub fn to_i64s(&self) -> Option<Vec<i64>> {
        match &self.data {
            Data::Bool(v) => Some(v.iter().map(|&b| i64::from(b)).collect()),
            Data::U64(v) => v.iter().map(|&x| i64::try_from(x).ok()).collect(),
            Data::I64(v) => Some(v.to_vec()),
            Data::I8(v) => Some(v.iter().map(|&x| x.into()).collect()),
            Data::I16(v) => Some(v.iter().map(|&x| x.into()).collect()),
            Data::I32(v) => Some(v.iter().map(|&x| x.into()).collect()),
            Data::U8(v) => Some(v.iter().map(|&x| x.into()).collect()),
            Data::U16(v) => Some(v.iter().map(|&x| x.into()).collect()),
            Data::U32(v) => Some(v.iter().map(|&x| x.into()).collect()),
            _ => None,
        }
    }

    /// The elements of a floating-point tensor as f64; `None` for other types and for field elements.
    #[must_use]
    pub fn to_f64s(&self) -> Option<Vec<f64>> {
        use crate::scalar::Scalar;
        match_real!(&self.data, v => v.iter().map(|&x| Scalar::to_f64(x)).collect(), else None)
    }

    /// The tensor that stands for this one under `real`: floating-point elements widened or mapped, others as they are.
    #[must_use]
    pub fn to_real(&self, real: Real) -> Tensor {
        use crate::scalar::Scalar;
        let data = match (real, &self.data) {
            (Real::Native, d) => d.clone(),
            (Real::F64, Data::F32(v)) => Data::F64(Arc::new(v.iter().map(|&x| f64::from(x)).collect())),
            (Real::F64, Data::F16(v)) => Data::F64(Arc::new(v.iter().map(|&x| f64::from(x)).collect())),
            (Real::F64, Data::BF16(v)) => Data::F64(Arc::new(v.iter().map(|&x| f64::from(x)).collect())),
            (Real::Field, Data::F32(v)) => {
                Data::Field(Arc::new(v.iter().map(|&x| Field::from_f64(f64::from(x))).collect()))
            }
            (Real::Field, Data::F64(v)) => Data::Field(Arc::new(v.iter().map(|&x| Field::from_f64(x)).collect())),
            (Real::Field, Data::F16(v)) => {
                Data::Field(Arc::new(v.iter().map(|&x| Field::from_f64(f64::from(x))).collect()))
            }
            (Real::Field, Data::BF16(v)) => {
                Data::Field(Arc::new(v.iter().map(|&x| Field::from_f64(f64::from(x))).collect()))
            }
            (_, d) => d.clone(),
        };
        Tensor { shape: self.shape.clone(), data }
    }

    /// Floating-point elements rounded once to `dtype` (f16, bf16, f32, f64); other tensors and types as they are.
    #[must_use]
    pub fn rounded_to(&self, dtype: DType) -> Tensor {
        if self.dtype() == dtype || matches!(self.data, Data::Field(_)) {
            return self.clone();
        }
        let Some(v) = self.to_f64s() else { return self.clone() };
        let data = match dtype {
            DType::F32 => f32::wrap(v.iter().map(|&x| x as f32).collect()),
            DType::F64 => f64::wrap(v),
            DType::F16 => f16::wrap(v.iter().map(|&x| f16::from_f64(x)).collect()),
            DType::BF16 => bf16::wrap(v.iter().map(|&x| bf16::from_f64(x)).collect()),
            _ => return self.clone(),
        };
        Tensor { shape: self.shape.clone(), data }
    }
}

/// An immutable tensor of any ONNX type as bytes: little-endian elements, row-major, sub-byte types packed low bits first.
/// Strings are kept apart, for they have no fixed size.
#[derive(Debug, Clone, PartialEq)]
pub struct Constant {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Blob,
    strings: Arc<Vec<String>>,
}

impl Constant {
    /// A constant over `bytes`.
    ///
    /// # Errors
    /// If the number of bytes does not fit `dtype` and `shape`, or `dtype` is the string type.
    pub fn new(dtype: DType, shape: impl Into<Vec<usize>>, bytes: Blob) -> Result<Constant, TensorError> {
        let shape = shape.into();
        let expected = element_count(&shape).and_then(|n| dtype.bytes_for(n));
        if expected != Some(bytes.len()) {
            return Err(TensorError::ByteCount { dtype, shape, bytes: bytes.len() });
        }
        Ok(Constant { dtype, shape, bytes, strings: Arc::default() })
    }

    /// A constant of strings.
    ///
    /// # Errors
    /// If the number of strings is not the product of `shape`.
    pub fn strings(shape: impl Into<Vec<usize>>, strings: Vec<String>) -> Result<Constant, TensorError> {
        let shape = shape.into();
        if element_count(&shape) != Some(strings.len()) {
            return Err(TensorError::ElementCount { shape, elements: strings.len() });
        }
        Ok(Constant { dtype: DType::Str, shape, bytes: Blob::from(Vec::new()), strings: Arc::new(strings) })
    }

    /// The element type.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The sizes.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of the elements; empty for strings.
    #[must_use]
    pub fn bytes(&self) -> &Blob {
        &self.bytes
    }

    /// The strings, if it holds strings.
    #[must_use]
    pub fn as_strings(&self) -> &[String] {
        &self.strings
    }

    /// The tensor with these elements.
    ///
    /// # Errors
    /// If the type is carried but not executed.
    pub fn to_tensor(&self) -> Result<Tensor, TensorError> {
        fn pod<T: Element + bytemuck::Pod>(bytes: &[u8]) -> Data {
            T::wrap(bytemuck::pod_collect_to_vec(bytes))
        }
        let b = self.bytes.as_bytes();
        let data = match self.dtype {
            DType::F32 => pod::<f32>(b),
            DType::F64 => pod::<f64>(b),
            DType::F16 => pod::<f16>(b),
            DType::BF16 => pod::<bf16>(b),
            DType::I8 => pod::<i8>(b),
            DType::I16 => pod::<i16>(b),
            DType::I32 => pod::<i32>(b),
            DType::I64 => pod::<i64>(b),
            DType::U8 => u8::wrap(b.to_vec()),
            DType::U16 => pod::<u16>(b),
            DType::U32 => pod::<u32>(b),
            DType::U64 => pod::<u64>(b),
            DType::Bool => bool::wrap(b.iter().map(|&x| x != 0).collect()),
            DType::Str => Data::Str(Arc::clone(&self.strings)),
            dtype => return Err(TensorError::NotExecuted { dtype }),
        };
        Tensor::from_data(self.shape.clone(), data)
    }

    /// The constant with the elements of `tensor`.
    ///
    /// # Errors
    /// If the tensor holds field elements.
    pub fn from_tensor(tensor: &Tensor) -> Result<Constant, TensorError> {
        fn bytes<T: bytemuck::NoUninit>(v: &[T]) -> Blob {
            Blob::from(bytemuck::cast_slice::<T, u8>(v).to_vec())
        }
        let blob = match tensor.data() {
            Data::F32(v) => bytes(v),
            Data::F64(v) => bytes(v),
            Data::F16(v) => bytes(v),
            Data::BF16(v) => bytes(v),
            Data::I8(v) => bytes(v),
            Data::I16(v) => bytes(v),
            Data::I32(v) => bytes(v),
            Data::I64(v) => bytes(v),
            Data::U8(v) => bytes(v),
            Data::U16(v) => bytes(v),
            Data::U32(v) => bytes(v),
            Data::U64(v) => bytes(v),
            Data::Bool(v) => bytes(v),
            Data::Str(v) => return Constant::strings(tensor.shape(), v.to_vec()),
            Data::Field(_) => return Err(TensorError::FieldElements),
        };
        Constant::new(tensor.dtype(), tensor.shape(), blob)
    }
}
