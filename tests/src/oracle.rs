//! A brute-force evaluator written from the formulas of the ONNX operator specifications, element by element. It shares
//! number arithmetic with the runtime ([`Scalar`]) and nothing else: no geometry, no broadcasting, no kernels.

mod channels;
mod functions;
mod gates;
mod maps;
mod ops;
mod products;
mod reduce;
mod systems;

use std::collections::BTreeMap;

use convc::ir::{Graph, Kind, Value};
use convc_runtime::{DType, Data, Element, Real, Tensor, scalar::Scalar};

/// A tensor: sizes and row-major elements.
#[derive(Debug, Clone, PartialEq)]
pub struct Array<S> {
    /// Sizes.
    pub shape: Vec<i64>,
    /// Elements.
    pub data: Elements<S>,
}

/// Elements: of a floating-point tensor, or of an integer or boolean one.
#[derive(Debug, Clone, PartialEq)]
pub enum Elements<S> {
    /// Numbers.
    Real(Vec<S>),
    /// Integers.
    Int(Vec<i64>),
}

/// Every index of a shape, in row-major order.
#[must_use]
pub fn indices(shape: &[i64]) -> Vec<Vec<i64>> {
    let mut out = vec![Vec::new()];
    for &n in shape {
        out = out
            .into_iter()
            .flat_map(|head: Vec<i64>| {
                (0..n).map(move |i| {
                    let mut index = head.clone();
                    index.push(i);
                    index
                })
            })
            .collect();
    }
    out
}

/// Where `index` lies in row-major order, `None` if it lies outside.
#[must_use]
pub fn offset(shape: &[i64], index: &[i64]) -> Option<usize> {
    assert_eq!(shape.len(), index.len());
    let mut at = 0;
    for (&n, &i) in shape.iter().zip(index) {
        if !(0..n).contains(&i) {
            return None;
        }
        at = at * n + i;
    }
    usize::try_from(at).ok()
}

impl<S: Scalar> Array<S> {
    /// A tensor of numbers.
    #[must_use]
    pub fn real(shape: Vec<i64>, data: Vec<S>) -> Array<S> {
        Array { shape, data: Elements::Real(data) }
    }

    /// The numbers.
    ///
    /// # Panics
    /// If these are integers.
    #[must_use]
    pub fn reals(&self) -> &[S] {
        match &self.data {
            Elements::Real(v) => v,
            Elements::Int(_) => panic!("numbers are needed, integers are there"),
        }
    }

    /// The integers.
    ///
    /// # Panics
    /// If these are numbers.
    #[must_use]
    pub fn ints(&self) -> &[i64] {
        match &self.data {
            Elements::Int(v) => v,
            Elements::Real(_) => panic!("integers are needed, numbers are there"),
        }
    }

    /// The number at `index`, 0 outside.
    #[must_use]
    pub fn at(&self, index: &[i64]) -> S {
        offset(&self.shape, index).map_or(S::ZERO, |i| self.reals()[i])
    }

    /// The elements moved: element `index` of the result is that at `from(index)`.
    fn gather(&self, shape: Vec<i64>, from: impl Fn(&[i64]) -> Vec<i64>) -> Array<S> {
        let at: Vec<usize> =
            indices(&shape).iter().map(|i| offset(&self.shape, &from(i)).expect("the index lies inside")).collect();
        let data = match &self.data {
            Elements::Real(v) => Elements::Real(at.iter().map(|&i| v[i]).collect()),
            Elements::Int(v) => Elements::Int(at.iter().map(|&i| v[i]).collect()),
        };
        Array { shape, data }
    }
}

/// The numbers that an oracle may compute in.
pub trait Number: Scalar + Element {
    /// The runtime's word for them.
    const REAL: Real;
}

impl Number for f64 {
    const REAL: Real = Real::F64;
}

impl Number for convc_runtime::scalar::Field {
    const REAL: Real = Real::Field;
}

/// A tensor of the runtime's as the oracle sees it.
///
/// # Panics
/// For strings and types that are not executed.
#[must_use]
pub fn read<S: Number>(t: &Tensor) -> Array<S> {
    let shape = t.shape().iter().map(|&n| n as i64).collect();
    let data = match t.to_real(S::REAL).data() {
        Data::Bool(v) => Elements::Int(v.iter().map(|&b| i64::from(b)).collect()),
        d => match S::of(d) {
            Some(v) => Elements::Real(v.to_vec()),
            None => match t.data() {
                Data::U64(v) => Elements::Int(v.iter().map(|&v| v as i64).collect()),
                _ => Elements::Int(t.to_i64s().expect("integers")),
            },
        },
    };
    Array { shape, data }
}

/// The values of a graph's outputs; an error where an operator refuses its operands.
///
/// # Errors
/// A sentence that says which and why.
pub fn run<S: Number>(graph: &Graph, inputs: &BTreeMap<String, Tensor>) -> Result<Vec<Array<S>>, String> {
    run_with(graph, inputs, &|y, _, _| Ok(y))
}

/// What becomes of an operator's result, by its type and the operator's name.
type Finish<'a, S> = &'a dyn Fn(Array<S>, DType, &str) -> Result<Array<S>, String>;

fn run_with<S: Number>(
    graph: &Graph,
    inputs: &BTreeMap<String, Tensor>,
    finish: Finish<'_, S>,
) -> Result<Vec<Array<S>>, String> {
    let mut values: BTreeMap<Value, Array<S>> = BTreeMap::new();
    for id in graph.topological() {
        let node = graph.node(id);
        let v = Value { node: id, port: 0 };
        let result = match &node.kind {
            Kind::Input => {
                let name = graph.value_name(v).unwrap_or_default();
                read(inputs.get(name).ok_or_else(|| format!("there is no input {name}"))?)
            }
            Kind::Constant(c) => read(&c.to_tensor().map_err(|e| e.to_string())?),
            Kind::Op(op) => {
                let operands: Vec<Option<&Array<S>>> = node.operands().iter().map(|o| o.map(|o| &values[&o])).collect();
                let name = op.name();
                let dtype = graph.dtype(v);
                let integers = dtype.is_some_and(|d| !d.is_float());
                let y = ops::apply(op, &operands, integers).map_err(|e| format!("{name}: {e}"))?;
                match dtype {
                    Some(dtype) => finish(y, dtype, name).map_err(|e| format!("{name}: {e}"))?,
                    None => y,
                }
            }
            kind => return Err(format!("the oracle has no {}", kind.name())),
        };
        values.insert(v, result);
    }
    Ok(graph.outputs().iter().map(|o| values[&o.value].clone()).collect())
}

/// An integer as an element of this type, the bits of an unsigned one of 64 as a signed one.
#[must_use]
pub fn wrapped(v: i64, dtype: DType) -> i64 {
    match dtype {
        DType::I8 => i64::from(v as i8),
        DType::I16 => i64::from(v as i16),
        DType::I32 => i64::from(v as i32),
        DType::U8 => i64::from(v as u8),
        DType::U16 => i64::from(v as u16),
        DType::U32 => i64::from(v as u32),
        DType::Bool => i64::from(v != 0),
        _ => v,
    }
}

/// A tensor of integers, each [`wrapped`] in this type.
#[must_use]
pub fn integers(dtype: DType, shape: &[usize], v: &[i64]) -> Option<Tensor> {
    macro_rules! of {
        ($($variant:ident $t:ty),*) => {
            match dtype {
                $(DType::$variant => Tensor::new(shape, v.iter().map(|&x| x as $t).collect::<Vec<$t>>()).ok(),)*
                _ => None,
            }
        };
    }
    of!(I8 i8, I16 i16, I32 i32, I64 i64, U8 u8, U16 u16, U32 u32, U64 u64)
}

/// The values of a graph's outputs with the arithmetic of its own types: integers wrap around, the result of every operator is
/// rounded.
///
/// # Errors
/// As [`run`], and for operators that order or divide unsigned integers of 64 bits.
pub fn run_native(graph: &Graph, inputs: &BTreeMap<String, Tensor>) -> Result<Vec<Array<f64>>, String> {
    run_with(graph, inputs, &|mut y: Array<f64>, dtype, op| {
        if dtype == DType::U64 && ["Div", "Max", "Min", "Mod", "Pow"].contains(&op) {
            return Err("the order of the bits is another".into());
        }
        match &mut y.data {
            Elements::Int(v) => v.iter_mut().for_each(|v| *v = wrapped(*v, dtype)),
            Elements::Real(v) => {
                let rounded = Tensor::vector(v.clone()).rounded_to(dtype).to_f64s();
                *v = rounded.ok_or("no numbers")?;
            }
        }
        Ok(y)
    })
}

/// Random inputs of a graph whose symbols have these values: multiples of 1/8.
///
/// # Panics
/// If an input's size has no value.
#[must_use]
pub fn random_inputs(graph: &Graph, bindings: &convc_runtime::Bindings, seed: u64) -> BTreeMap<String, Tensor> {
    let each = graph.inputs().into_iter().enumerate().map(|(i, v)| {
        let fact = graph.fact(v).expect("an input's type is known");
        let shape: Vec<usize> = fact
            .shape
            .iter()
            .map(|d| usize::try_from(d.eval(bindings).expect("all symbols are bound")).expect("a size"))
            .collect();
        let seed = seed.wrapping_mul(31).wrapping_add(1000 + i as u64);
        let tensor = convc::ir::text::Generator::Random(seed).tensor(fact.dtype, &shape).expect("a type with elements");
        (graph.value_name(v).unwrap_or_default().to_owned(), tensor)
    });
    each.collect()
}

/// Whether two results are equal: exactly in the field, within `tolerance` of the largest element in f64.
///
/// # Errors
/// Where they differ.
pub fn compare<S: Number>(expected: &[Array<S>], found: &[Tensor], tolerance: f64) -> Result<(), String> {
    if expected.len() != found.len() {
        return Err(format!("{} outputs, not {}", found.len(), expected.len()));
    }
    for (k, (e, f)) in expected.iter().zip(found).enumerate() {
        let f: Array<S> = read(f);
        if e.shape != f.shape {
            return Err(format!("output {k} has shape {:?}, not {:?}", f.shape, e.shape));
        }
        match (&e.data, &f.data) {
            (Elements::Int(a), Elements::Int(b)) if a == b => {}
            (Elements::Real(a), Elements::Real(b)) => {
                let finite = a.iter().filter_map(|x| x.to_f64()).filter(|x| x.is_finite());
                let size = finite.fold(1.0, |m: f64, x| m.max(x.abs()));
                for (i, (&x, &y)) in a.iter().zip(b).enumerate() {
                    let equal = match (x.to_f64(), y.to_f64()) {
                        (Some(x), Some(y)) => x == y || (x - y).abs() <= tolerance * size || (x.is_nan() && y.is_nan()),
                        _ => x == y,
                    };
                    if !equal {
                        return Err(format!("element {i} of output {k} is {y:?}, not {x:?}"));
                    }
                }
            }
            _ => return Err(format!("output {k} differs")),
        }
    }
    Ok(())
}

/// Whether the type is one that a graph's arithmetic happens in.
#[must_use]
pub fn is_number(dtype: DType) -> bool {
    dtype.is_float()
}
