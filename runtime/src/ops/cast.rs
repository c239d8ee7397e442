//! Conversion between element types: <https://onnx.ai/onnx/operators/onnx__Cast.html>.

use half::{bf16, f16};

use crate::{
    DType, Data, Element, Fact, Known, OpError, Real, Tensor, attributes,
    match_integer,
    ops::{InferCx, Operator, RunCx, helpers::required, known::{propagate, value_error}, },
    scalar::Scalar,
};

attributes! {
    /// The elements of `input` as another type.
    ///
    /// Floats are cut towards zero on their way to integers and saturate beyond their range, where ONNX leaves the result
    /// open; integers lose their high bits; every number but 0 is true. Strings are read and written as Python does.
    pub struct Cast {
        /// The type of the result.
        pub to: DType,
    }
}

/// Whether tensors of this type are executed.
fn executed(dtype: DType) -> bool {
    dtype.is_float() || dtype.is_integer() || matches!(dtype, DType::Bool | DType::Str)
}

impl Operator for Cast {
    single!(Cast, "Cast");

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "input")?;
        if let Some(d) = [x.dtype, self.to].into_iter().find(|&d| !executed(d)) {
            return Err(OpError::Unsupported(format!("a conversion with elements of type {d}")));
        }
        if x.dtype == self.to {
            return Ok(vec![x.clone()]);
        }
        let out = Fact::new(self.to, x.shape.clone());
        let index = |d| matches!(d, DType::I64 | DType::I32);
        match &x.known {
            // Expressions are sizes and positions, which i32 holds as well.
            Some(Known::Dims(d)) if index(x.dtype) && index(self.to) && d.iter().any(|d| !d.is_fixed()) => {
                Ok(vec![out.with_dims(d.clone())])
            }
            _ => Ok(propagate(self, inputs, |_| false, vec![out])),
        }
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = required(inputs, 0, "input")?;
        if let (Real::Field, Data::Field(_), true) = (cx.real, x.data(), self.to.is_float()) {
            return Ok(vec![x.clone()]);
        }
        let to = cx.stored(self.to);
        if x.dtype() == to && !matches!(x.data(), Data::Field(_)) {
            return Ok(vec![x.clone()]);
        }
        let data = convert(x.data(), to)?;
        Ok(vec![cx.made(Tensor::from_data(x.shape(), data)?)])
    }
}

fn convert(data: &Data, to: DType) -> Result<Data, OpError> {
    if let Data::Str(v) = data {
        return from_strings(v, to);
    }
    if let (Data::F32(v), DType::F16) = (data, to) {
        return Ok(f16::wrap(v.iter().map(|&x| f16::from_f32(x)).collect()));
    }
    match data {
        Data::F32(v) => from_floats(v, to, shortest32),
        Data::F64(v) => from_floats(v, to, shortest),
        Data::F16(v) => from_floats(v, to, |x| shortest32(x.to_f32())),
        Data::BF16(v) => from_floats(v, to, |x| shortest32(x.to_f32())),
        Data::Bool(v) => from_integers(&v.iter().map(|&b| u8::from(b)).collect::<Vec<_>>(), to, |b| {
            if b == 1 { "True".into() } else { "False".into() }
        }),
        Data::Field(_) => Err(OpError::Unsupported("a conversion of elements of the test field".into())),
        other => match_integer!(other, v => from_integers(v, to, |x| x.to_string()), else unsupported(to)),
    }
}

fn unsupported(to: DType) -> Result<Data, OpError> {
    Err(OpError::Unsupported(format!("a conversion with elements of type {to}")))
}

fn from_floats<T: Scalar>(v: &[T], to: DType, text: impl Fn(T) -> String) -> Result<Data, OpError> {
    fn map<T: Scalar, U: Element>(v: &[T], f: impl Fn(f64) -> U) -> Data {
        U::wrap(v.iter().map(|&x| f(x.to_f64().unwrap_or(f64::NAN))).collect())
    }
    Ok(match to {
        DType::F32 => map(v, |x| x as f32),
        DType::F64 => map(v, |x| x),
        DType::F16 => map(v, f16::from_f64),
        DType::BF16 => map(v, bf16::from_f64),
        DType::I8 => map(v, |x| x as i8),
        DType::I16 => map(v, |x| x as i16),
        DType::I32 => map(v, |x| x as i32),
        DType::I64 => map(v, |x| x as i64),
        DType::U8 => map(v, |x| x as u8),
        DType::U16 => map(v, |x| x as u16),
        DType::U32 => map(v, |x| x as u32),
        DType::U64 => map(v, |x| x as u64),
        DType::Bool => map(v, |x| x != 0.0),
        DType::Str => String::wrap(v.iter().map(|&x| text(x)).collect()),
        _ => return unsupported(to),
    })
}

/// The primitive integers, each cast as the language does: modulo the size of the result, rounded to floats.
trait Integer: Copy {
    fn wide(self) -> i128;
}
macro_rules! integers {
    ($($t:ty)*) => { $(impl Integer for $t {
        fn wide(self) -> i128 {
            i128::from(self)
        }
    })* };
}
integers!(i8 i16 i32 i64 u8 u16 u32 u64);

fn from_integers<T: Integer>(v: &[T], to: DType, text: impl Fn(T) -> String) -> Result<Data, OpError> {
    fn map<T: Integer, U: Element>(v: &[T], f: impl Fn(i128) -> U) -> Data {
        U::wrap(v.iter().map(|&x| f(x.wide())).collect())
    }
    Ok(match to {
        DType::F32 => map(v, |x| x as f32),
        DType::F64 => map(v, |x| x as f64),
        DType::F16 => map(v, |x| f16::from_f32(x as f32)),
        DType::BF16 => map(v, |x| bf16::from_f32(x as f32)),
        DType::I8 => map(v, |x| x as i8),
        DType::I16 => map(v, |x| x as i16),
        DType::I32 => map(v, |x| x as i32),
        DType::I64 => map(v, |x| x as i64),
        DType::U8 => map(v, |x| x as u8),
        DType::U16 => map(v, |x| x as u16),
        DType::U32 => map(v, |x| x as u32),
        DType::U64 => map(v, |x| x as u64),
        DType::Bool => map(v, |x| x != 0),
        DType::Str => String::wrap(v.iter().map(|&x| text(x)).collect()),
        _ => return unsupported(to),
    })
}

fn from_strings(v: &[String], to: DType) -> Result<Data, OpError> {
    fn parse<U: Element>(v: &[String], f: impl Fn(&str) -> Option<U>) -> Result<Data, OpError> {
        let one = |s: &String| f(s.trim()).ok_or_else(|| value_error(0, "input", format!("{s:?} is not a number")));
        Ok(U::wrap(v.iter().map(one).collect::<Result<_, _>>()?))
    }
    /// An integer, or a number with a fraction that is cut.
    fn integer(s: &str) -> Option<i128> {
        s.parse().ok().or_else(|| s.parse::<f64>().ok().filter(|x| x.is_finite()).map(|x| x as i128))
    }
    macro_rules! integer {
        ($t:ty) => {
            parse(v, |s| <$t>::try_from(integer(s)?).ok())
        };
    }
    match to {
        DType::F32 => parse(v, |s| s.parse::<f32>().ok()),
        DType::F64 => parse(v, |s| s.parse::<f64>().ok()),
        DType::F16 => parse(v, |s| s.parse().ok().map(f16::from_f64)),
        DType::BF16 => parse(v, |s| s.parse().ok().map(bf16::from_f64)),
        DType::I8 => integer!(i8),
        DType::I16 => integer!(i16),
        DType::I32 => integer!(i32),
        DType::I64 => integer!(i64),
        DType::U8 => integer!(u8),
        DType::U16 => integer!(u16),
        DType::U32 => integer!(u32),
        DType::U64 => integer!(u64),
        DType::Bool => parse(v, |s| match s {
            "True" | "true" => Some(true),
            "False" | "false" => Some(false),
            _ => s.parse::<f64>().ok().map(|x| x != 0.0),
        }),
        _ => unsupported(to),
    }
}

/// The shortest decimal that reads back as `x`, as Python writes it.
fn shortest(x: f64) -> String {
    python(x.is_finite().then(|| format!("{x:e}")), x)
}

fn shortest32(x: f32) -> String {
    python(x.is_finite().then(|| format!("{x:e}")), f64::from(x))
}

fn python(scientific: Option<String>, x: f64) -> String {
    let parts = scientific.as_deref().and_then(|s| s.split_once('e'));
    let Some((mantissa, exponent)) = parts.and_then(|(m, e)| Some((m, e.parse::<i32>().ok()?))) else {
        return if x.is_nan() { "NaN" } else if x > 0.0 { "INF" } else { "-INF" }.into();
    };
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |m| ("-", m));
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    if !(-4..16).contains(&exponent) {
        let e = format!("{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.unsigned_abs());
        return format!("{sign}{mantissa}e{e}");
    }
    let Ok(whole) = usize::try_from(exponent + 1) else {
        return format!("{sign}0.{}{digits}", "0".repeat((-1 - exponent).unsigned_abs() as usize));
    };
    match digits.split_at_checked(whole) {
        Some(("", f)) => format!("{sign}0.{f}"),
        Some((w, "")) => format!("{sign}{w}.0"),
        Some((w, f)) => format!("{sign}{w}.{f}"),
        None => format!("{sign}{digits}{}.0", "0".repeat(whole - digits.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Dim,
        ops::movement::{checked, infer, run, run_in},
        scalar::Field,
    };

    fn field(x: f64) -> Field {
        Field::from_f64(x)
    }

    fn cast(x: &Tensor, to: DType) -> Tensor {
        checked(&Cast { to }, &[Some(x)], &[0]).remove(0)
    }

    #[test]
    fn numbers() {
        let x = Tensor::vector(vec![1.9f32, -1.9, 0.0, -0.0, 255.5, 1e-8]);
        assert_eq!(cast(&x, DType::I32), Tensor::vector(vec![1, -1, 0, 0, 255, 0]));
        assert_eq!(cast(&x, DType::U8), Tensor::vector(vec![1u8, 0, 0, 0, 255, 0]));
        assert_eq!(cast(&x, DType::Bool), Tensor::vector(vec![true, true, false, false, true, true]));
        assert_eq!(cast(&Tensor::vector(vec![f32::NAN]), DType::Bool), Tensor::vector(vec![true]));
        assert_eq!(cast(&Tensor::vector(vec![200i16, -1]), DType::I8), Tensor::vector(vec![-56i8, -1]));
        assert_eq!(cast(&Tensor::vector(vec![-1i64, 1 << 40]), DType::U32), Tensor::vector(vec![u32::MAX, 0]));
        assert_eq!(cast(&Tensor::vector(vec![true, false]), DType::F32), Tensor::vector(vec![1.0f32, 0.0]));
        assert_eq!(cast(&Tensor::vector(vec![i64::MAX]), DType::F32), Tensor::vector(vec![i64::MAX as f32]));
        assert_eq!(cast(&Tensor::vector(vec![70000]), DType::F16), Tensor::vector(vec![f16::INFINITY]));
        assert_eq!(cast(&Tensor::vector(vec![0.1f32]), DType::BF16), Tensor::vector(vec![bf16::from_f32(0.1)]));
        assert_eq!(cast(&Tensor::vector(vec![0.1f32]), DType::F16), Tensor::vector(vec![f16::from_f32(0.1)]));
        assert_eq!(cast(&Tensor::scalar(f16::from_f32(1.5)), DType::F64), Tensor::scalar(1.5f64));
        assert_eq!(cast(&Tensor::vector(Vec::<i64>::new()), DType::F16), Tensor::vector(Vec::<f16>::new()));
    }

    #[test]
    fn strings() {
        let texts = |v: &[&str]| Tensor::vector(v.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        let x = Tensor::vector(vec![0.478_925_47f32, 1.0, -1e-7, 1e6, 1e16, 0.001, 123.5, f32::NAN, f32::NEG_INFINITY]);
        let e = ["0.47892547", "1.0", "-1e-07", "1000000.0", "1e+16", "0.001", "123.5", "NaN", "-INF"];
        assert_eq!(run(&Cast { to: DType::Str }, &[Some(&x)]).unwrap()[0], texts(&e));
        assert_eq!(cast(&Tensor::vector(vec![-7i64]), DType::Str), texts(&["-7"]));
        let x = texts(&["3.25", "+INF", "-inf", "1e-5", " 7 "]);
        let e = [3.25f32, f32::INFINITY, f32::NEG_INFINITY, 1e-5, 7.0];
        assert_eq!(cast(&x, DType::F32), Tensor::vector(e.to_vec()));
        assert_eq!(cast(&texts(&["100.5", "-3"]), DType::I8), Tensor::vector(vec![100i8, -3]));
        for (bad, to) in [("Hello", DType::F32), ("", DType::I64), ("300", DType::U8), ("nan", DType::I32)] {
            assert!(run(&Cast { to }, &[Some(&texts(&[bad]))]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn stands_for_reals_as_the_run_does() {
        let x = Tensor::vector(vec![1i64, 3]);
        let to = |to, real| run_in(&Cast { to }, &[Some(&x)], real).unwrap().remove(0);
        assert_eq!(to(DType::F32, Real::F64), Tensor::vector(vec![1.0f64, 3.0]));
        assert_eq!(to(DType::F16, Real::Field), Tensor::vector(vec![field(1.0), field(3.0)]));
        assert_eq!(to(DType::I32, Real::F64), Tensor::vector(vec![1, 3]));
        let f = Tensor::vector(vec![field(0.5)]);
        assert_eq!(run_in(&Cast { to: DType::F64 }, &[Some(&f)], Real::Field).unwrap()[0], f);
        assert!(run_in(&Cast { to: DType::I64 }, &[Some(&f)], Real::Field).is_err());
        let d = Tensor::vector(vec![0.1f64]);
        assert_eq!(run_in(&Cast { to: DType::F16 }, &[Some(&d)], Real::F64).unwrap()[0], d);
    }

    #[test]
    fn types_that_are_only_carried_are_refused() {
        let x = Fact::new(DType::F32, [Dim::from(2)]);
        assert!(matches!(infer(&Cast { to: DType::F8E5M2 }, &[Some(&x)]), Err(OpError::Unsupported(_))));
        assert!(matches!(infer(&Cast { to: DType::F32 }, &[Some(&Fact::new(DType::I4, []))]), Err(OpError::Unsupported(_))));
    }
}
