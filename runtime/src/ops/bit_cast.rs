//! Reinterpretation of bits: <https://onnx.ai/onnx/operators/onnx__BitCast.html>.

use crate::{
    Blob, Constant, DType, Data, Fact, OpError, Real, Tensor, attributes,
    ops::{InferCx, Operator, RunCx, helpers::required, known::propagate},
};

attributes! {
    /// The bits of each element of `input` as a type of the same width.
    pub struct BitCast {
        /// The type of the result.
        pub to: DType,
    }
}

impl BitCast {
    fn check(&self, from: DType) -> Result<(), OpError> {
        let bits = |d: DType| if d == DType::Str { 0 } else { d.bits() };
        let known = |d: DType| d.is_float() || d.is_integer() || d == DType::Bool;
        if bits(from) == 0 || bits(from) != bits(self.to) {
            let problem = format!("{} is not as wide as {from}", self.to);
            return Err(OpError::Attribute { name: "to", problem });
        }
        match [from, self.to].into_iter().find(|&d| !known(d)) {
            Some(d) => Err(OpError::Unsupported(format!("the bits of elements of type {d}"))),
            None => Ok(()),
        }
    }
}

impl Operator for BitCast {
    single!(BitCast, "BitCast");

    fn infer(&self, inputs: &[Option<&Fact>], _: &mut InferCx<'_>) -> Result<Vec<Fact>, OpError> {
        let x = required(inputs, 0, "input")?;
        self.check(x.dtype)?;
        Ok(propagate(self, inputs, |_| false, vec![Fact::new(self.to, x.shape.clone())]))
    }

    fn run(&self, inputs: &[Option<&Tensor>], cx: &RunCx<'_>) -> Result<Vec<Tensor>, OpError> {
        let x = required(inputs, 0, "input")?;
        if let Data::Field(_) = x.data() {
            return Err(OpError::Unsupported("the bits of elements of the test field".into()));
        }
        let narrowed = match (cx.real, x.dtype(), self.to.bits()) {
            (Real::F64, DType::F64, 32) => x.rounded_to(DType::F32),
            (Real::F64, DType::F64, 16) => return Err(OpError::Unsupported("the bits of a half in f64".into())),
            _ => x.clone(),
        };
        self.check(narrowed.dtype())?;
        let bytes = Constant::from_tensor(&narrowed)?.bytes().as_bytes().to_vec();
        let y = Constant::new(self.to, x.shape(), Blob::from(bytes))?.to_tensor()?;
        Ok(vec![cx.made(y)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::movement::{checked, run, run_in};

    #[test]
    fn bits_stay() {
        let x = Tensor::new([2, 1], vec![1.0f32, -0.0]).unwrap();
        let y = checked(&BitCast { to: DType::I32 }, &[Some(&x)], &[]).remove(0);
        assert_eq!(y, Tensor::new([2, 1], vec![0x3F80_0000, i32::MIN]).unwrap());
        assert_eq!(checked(&BitCast { to: DType::F32 }, &[Some(&y)], &[]).remove(0), x);
        assert_eq!(run_in(&BitCast { to: DType::I32 }, &[Some(&x.to_real(Real::F64))], Real::F64).unwrap()[0], y);
        assert!(run(&BitCast { to: DType::I64 }, &[Some(&x)]).is_err());
        assert!(run(&BitCast { to: DType::Str }, &[Some(&x)]).is_err());
        let s = Tensor::vector(vec!["a".to_owned()]);
        assert!(run(&BitCast { to: DType::Str }, &[Some(&s)]).is_err());
    }
}
