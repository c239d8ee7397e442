//! How much work an operator is, in multiply-accumulates: the measure that papers give for networks.

use convc_runtime::{AttrValue, Attrs, Dim, Fact, Op};

/// Multiply-accumulates of one execution of `op`: those of convolutions and products of matrices. Everything else counts
/// as none, elementwise arithmetic included, as is the custom. `None` if a size or an operand is not known.
#[must_use]
pub fn macs(op: &Op, inputs: &[Option<&Fact>], outputs: &[&Fact]) -> Option<Dim> {
    let input = |i: usize| inputs.get(i).copied().flatten();
    let output = || outputs.first().map(|f| f.element_count());
    // [O, C/group, taps..] or, transposed, [C, O/group, taps..].
    let per_channel = |w: &Fact| Dim::product(w.shape.iter().skip(1));
    Some(match op.name() {
        // Each output element is a sum over C/group channels and all taps.
        "Conv" | "DeformConv" => &output()? * &per_channel(input(1)?),
        // Each input element goes to O/group channels and all taps.
        "ConvTranspose" => &input(0)?.element_count() * &per_channel(input(1)?),
        "MatMul" => &output()? * input(0)?.shape.last()?,
        "Gemm" => {
            let a = input(0)?;
            let transposed = matches!(op.to_attrs().get("trans_a"), Some(AttrValue::Int(1)));
            &output()? * a.shape.get(usize::from(!transposed))?
        }
        "Einsum" => einsum(&op.to_attrs(), inputs)?,
        _ => Dim::from(0),
    })
}

/// The product of all sizes that the equation names: the work of one nested loop, which is one product for each operand
/// behind the first.
fn einsum(attrs: &Attrs, inputs: &[Option<&Fact>]) -> Option<Dim> {
    let Some(AttrValue::Str(equation)) = attrs.get("equation") else { return None };
    let left = equation.split("->").next()?;
    let mut sizes = std::collections::BTreeMap::new();
    let mut ellipsis: &[Dim] = &[];
    for (term, fact) in left.split(',').zip(inputs) {
        let shape = fact.as_ref()?.shape.as_slice();
        let labels = |s: &str| s.chars().filter(|c| c.is_alphabetic()).collect::<Vec<char>>();
        let (before, after) = term.split_once("...").unwrap_or((term, ""));
        let (before, after) = (labels(before), labels(after));
        let tail = shape.len().checked_sub(after.len())?;
        let middle = shape.get(before.len()..tail)?;
        if middle.len() > ellipsis.len() {
            ellipsis = middle;
        }
        sizes.extend(before.into_iter().zip(shape));
        sizes.extend(after.into_iter().zip(shape.get(tail..)?));
    }
    let products = i64::try_from(inputs.len().checked_sub(1)?).ok()?;
    Some(Dim::product(sizes.values().copied().chain(ellipsis).cloned().chain([Dim::from(products)])))
}

#[cfg(test)]
mod tests {
    use convc_runtime::{
        DType,
        ops::{Conv, Unary, unary::UnaryKind},
        window::AutoPad,
    };

    use super::*;

    fn fact(shape: &[&str]) -> Fact {
        Fact::new(DType::F32, shape.iter().map(|d| Dim::parse(d).unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn a_grouped_convolution_sees_a_part_of_the_channels() {
        let conv =
            Conv { strides: vec![1, 1], pads: vec![1; 4], dilations: vec![1, 1], group: 4, auto_pad: AutoPad::NotSet };
        let (x, w, y) = (fact(&["N", "8", "H", "W"]), fact(&["16", "2", "3", "3"]), fact(&["N", "16", "H", "W"]));
        let n = macs(&Op::Conv(conv), &[Some(&x), Some(&w)], &[&y]).unwrap();
        assert_eq!(n, Dim::parse("288*H*N*W").unwrap());
    }

    #[test]
    fn a_function_of_one_argument_is_free() {
        let x = fact(&["N"]);
        let relu = Op::Unary(Unary::new(UnaryKind::Relu));
        assert_eq!(macs(&relu, &[Some(&x)], &[&x]), Some(Dim::from(0)));
    }

    #[test]
    fn an_equation_counts_each_label_once() {
        let attrs = |e: &str| Attrs::from([("equation".to_owned(), AttrValue::Str(e.into()))]);
        let (a, b) = (fact(&["2", "N", "3", "4"]), fact(&["N", "4", "5"]));
        let work = |e: &str| einsum(&attrs(e), &[Some(&a), Some(&b)]);
        assert_eq!(work("bnij, njk -> bnik"), Dim::parse("120*N").ok());
        assert_eq!(work("...ij,...jk->...ik"), Dim::parse("120*N").ok());
        assert_eq!(work("abcdefg,...jk"), None);
    }
}
