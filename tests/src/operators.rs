//! Each operator in small: attributes and operands for which it runs.

use convc::ir::text::parse;
use convc_runtime::{
    Op, Tensor,
    ops::{
        binary::BinaryKind, global_pool::GlobalPoolKind, reduce::ReduceKind, unary::UnaryKind, variadic::VariadicKind,
    },
};

/// An operand of a sample.
#[derive(Debug, Clone)]
pub enum Operand {
    /// It is left out.
    Hole,
    /// It is these elements: a list of axes, a shape.
    Fixed(Tensor),
    /// It is any tensor of this type and shape: `f32`, `i64`, `i32`, `u8`, `bool`, or `+f32` without elements below 0.
    Any(&'static str, Vec<usize>),
}

/// An operator and operands that it takes.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The operator.
    pub op: Op,
    /// Its operands.
    pub operands: Vec<Operand>,
}

/// Names, attributes and operands, one sample a line: `_` is a hole, `=1,2` a list of i64, `#1` one i64, `.5` one f32.
const SAMPLES: &str = r#"
Conv|WINDOW, group=2|f32[2,4,5,5] f32[4,2,3,3] f32[4]
Conv|WINDOW, group=1|f32[1,2,4,5] f32[3,2,1,3]
ConvTranspose|WINDOW, group=1, output_padding=[1, 0], output_shape=[]|f32[1,3,4,4] f32[3,2,3,3] f32[2]
MaxPool|WINDOW, kernel_shape=[2, 3], ceil_mode=0, indices=0, column_major=0|f32[1,2,5,5]
AveragePool|WINDOW, kernel_shape=[3, 3], ceil_mode=0, count_include_pad=0|f32[1,2,5,5]
AveragePool|WINDOW, kernel_shape=[3, 3], ceil_mode=0, count_include_pad=1|f32[1,2,5,5]
LpPool|WINDOW, kernel_shape=[3, 3], ceil_mode=0, p=2|f32[1,2,5,5]
GlobalLpPool|p=3|f32[1,2,4,5]
BatchNormalization|epsilon=0.5|f32[2,3,4] f32[3] f32[3] f32[3] +f32[3]
InstanceNormalization|epsilon=0.5|f32[2,3,4] f32[3] f32[3]
GroupNormalization|epsilon=0.5, num_groups=2, stash_type="f32"|f32[2,4,3] f32[4] f32[4]
LayerNormalization|axis=1, epsilon=0.5, stash_type="f32"|f32[2,3,4] f32[3,4] f32[3,4]
RMSNormalization|axis=1, epsilon=0.5, stash_type="f32"|f32[2,3,4] f32[3,4]
LRN|alpha=0.5, beta=0.75, bias=1.0, size=3|f32[1,5,2,2]
LpNormalization|axis=1, p=2|f32[2,3]
MeanVarianceNormalization|axes=[0, 2]|f32[2,3,4]
Resize|RESIZE, mode="nearest", antialias=0, coordinate_transformation_mode="asymmetric"|f32[1,2,3,3] _ _ =1,2,7,5
Resize|RESIZE, mode="linear", antialias=0, coordinate_transformation_mode="half_pixel"|f32[1,2,3,3] _ _ =1,2,7,5
Resize|RESIZE, mode="cubic", antialias=0, coordinate_transformation_mode="half_pixel"|f32[1,2,4,4] _ _ =1,2,7,5
Resize|RESIZE, mode="linear", antialias=1, coordinate_transformation_mode="half_pixel"|f32[1,2,7,7] _ _ =1,2,3,4
Gelu|approximate="none"|f32[2,5]
Gelu|approximate="tanh"|f32[2,5]
IsNaN||f32[6]
IsInf|detect_negative=1, detect_positive=1|f32[6]
Not||bool[4]
BitwiseNot||i32[4]
Pow||f32[2,3] f32[2,3]
Pow||f32[2,3] .2
Mod|fmod=0|i64[2,3] i64[2,3]
Mod|fmod=1|f32[2,3] f32[2,3]
And||bool[2,3] bool[2,3]
Or||bool[2,3] bool[2,3]
Xor||bool[2,3] bool[2,3]
BitwiseAnd||i32[2,3] i32[2,3]
BitwiseOr||i32[2,3] i32[2,3]
BitwiseXor||i32[2,3] i32[2,3]
BitShift|direction="LEFT"|u8[2,3] u8[2,3]
Equal||f32[2,3] f32[2,3]
Equal||i64[2,3] i64[2,3]
Equal||bool[2,3] bool[2,3]
Greater||f32[2,3] f32[2,3]
Less||f32[2,3] f32[2,3]
GreaterOrEqual||f32[2,3] f32[2,3]
LessOrEqual||f32[2,3] f32[2,3]
Clip||f32[2,3] f32[] f32[]
Clip||f32[2,3] f32[]
Clip||f32[2,3] _ f32[]
ArgMax|axis=1, keepdims=1, select_last_index=0|f32[3,4]
ArgMin|axis=1, keepdims=1, select_last_index=0|f32[3,4]
CumSum|exclusive=1, reverse=0|f32[3,4] #1
CumProd|exclusive=0, reverse=1|f32[3,4] #1
Softmax|axis=1, flatten=0|f32[3,4]
LogSoftmax|axis=1, flatten=0|f32[3,4]
Hardmax|axis=1, flatten=0|f32[3,4]
MatMul||f32[2,3,4] f32[4,5]
Gemm|alpha=0.5, beta=2.0, trans_a=1, trans_b=0|f32[3,2] f32[3,4] f32[4]
Gemm|alpha=0.5, beta=2.0, trans_a=0, trans_b=1|f32[2,3] f32[4,3]
Einsum|equation="bij,jk->bik"|f32[2,3,4] f32[4,5]
Einsum|equation="ij,jk,kl->il"|f32[2,3] f32[3,2] f32[2,4]
QuantizeLinear|axis=1, block_size=0|f32[2,3] .5 u8[]
DequantizeLinear|axis=1, block_size=0|u8[2,3] f32[] u8[]
DynamicQuantizeLinear||f32[2,3]
MatMulInteger||u8[2,3] u8[3,2]
QLinearMatMul||u8[2,3] .5 u8[] u8[3,2] .5 u8[] .5 u8[]
NegativeLogLikelihoodLoss|reduction="mean"|f32[3,4] =1,0,3
SoftmaxCrossEntropyLoss|reduction="sum"|f32[3,4] =1,0,3
Reshape|allowzero=0|f32[2,6] =3,-1
Flatten|axis=1|f32[2,3,2]
Squeeze||f32[2,1,3] =1
Unsqueeze||f32[2,3] =0,2
Identity||f32[2,3]
Transpose|perm=[2, 0, 1]|f32[2,3,4]
Concat|axis=1|f32[2,3] f32[2,1] f32[2,2]
Split|axis=1, num_outputs=2|f32[2,6] =2,4
Slice||f32[4,5] =1,-1 =4,-9 =0,1 =1,-2
Shape|start=0|f32[2,3]
Size||f32[2,3]
Gather|axis=1|f32[2,4] =3,0,0
Cast|to="f64"|f32[2,3]
Cast|to="f32"|i64[2,3]
Cast|to="i64"|f32[2,3]
Cast|to="bool"|f32[2,3]
EyeLike|k=1, dtype="f32"|f32[3,4]
Range||.1 .4 .1
Expand||f32[3,1] =2,3,4
Tile||f32[2,3] =2,2
Where||bool[2,3] f32[2,3] f32[2,3]
Pad|mode="constant"|f32[2,4] =1,0,0,2 f32[]
Pad|mode="constant"|f32[2,4] =1,0,0,2
Pad|mode="reflect"|f32[3,4] =1,0,0,2
Pad|mode="edge"|f32[3,4] =1,0,0,2
Pad|mode="wrap"|f32[3,4] =1,0,0,2
GatherElements|axis=0|f32[3,1] =1,0x1
GatherND|batch_dims=0|f32[3,2] =2,0x1
ScatterElements|axis=0, reduction="none"|f32[4] =3,1 f32[2]
ScatterElements|axis=0, reduction="add"|f32[4] =3,3 f32[2]
ScatterElements|axis=0, reduction="mul"|f32[4] =3,1 f32[2]
ScatterElements|axis=0, reduction="max"|f32[4] =3,1 f32[2]
ScatterElements|axis=0, reduction="min"|f32[4] =3,1 f32[2]
ScatterND|reduction="none"|f32[4,2] =3,1x1 f32[2,2]
ScatterND|reduction="add"|f32[4,2] =3,3x1 f32[2,2]
ScatterND|reduction="mul"|f32[4,2] =3,1x1 f32[2,2]
ScatterND|reduction="max"|f32[4,2] =3,1x1 f32[2,2]
ScatterND|reduction="min"|f32[4,2] =3,1x1 f32[2,2]
TensorScatter|axis=-2, mode="linear"|f32[2,4,3] f32[2,2,3] =1,0
DepthToSpace|blocksize=2, mode="CRD"|f32[1,8,2,3]
SpaceToDepth|blocksize=2, mode="DCR"|f32[1,2,4,2]
OneHot|axis=-1|=1,0,2 #3 f32[2]
Trilu|upper=1|f32[3,4]
NonZero||f32[2,3]
Compress|axis=1|f32[2,3] bool[3]
ReverseSequence|batch_axis=1, time_axis=0|f32[4,2] =3,2
TopK|axis=1, largest=1, sorted=1|f32[2,4] =2
Unique|sorted=1|f32[5]
CenterCropPad|axes=[0, 1]|f32[4,3] =2,5
Col2Im||f32[1,4,9] =4,4 =2,2
BitCast|to="i32"|f32[3]
DOConv|GROUPED, kernel_shape=[3, 3]|f32[1,2,5,5] f32[2,9,9] f32[4,2,9] f32[4]
CondConv|GROUPED|f32[2,2,5,5] f32[2,3] f32[3,4,2,3,3] f32[3,4]
DynamicConv|GROUPED|f32[2,2,5,5] f32[2,3] f32[3,4,2,3,3]
GhostModule|GROUPED, out_channels=4, activation="Relu", cheap_pads=[1, 1, 1, 1], cheap_dilations=[1, 1]|f32[1,2,5,5] f32[2,2,3,3] f32[2] f32[2,1,3,3] f32[2]
SCConv|GROUPED, pool_size=2|f32[1,2,6,6] f32[2,2,3,3] f32[2] f32[2,2,3,3] f32[2] f32[2,2,3,3] f32[2]
SplitAttention|GROUPED, radix=2, cardinality=1, activation="Relu"|f32[1,4,5,5] f32[8,4,3,3] f32[8] f32[5,4,1,1] f32[5] f32[8,5,1,1]
Involution|GROUPED, kernel_shape=[3, 3]|f32[1,4,4,4] f32[1,9,4,4]
"#;

const WINDOW: &str = r#"strides=[2, 1], pads=[1, 0, 1, 1], dilations=[1, 1], auto_pad="NOTSET""#;
const GROUPED: &str = "strides=[1, 1], pads=[1, 1, 1, 1], dilations=[1, 1], group=1";
const RESIZE: &str = r#"nearest_mode="floor", cubic_coeff_a=-0.75, exclude_outside=0, extrapolation_value=0.0, axes=[], keep_aspect_ratio_policy="stretch""#;

fn operand(text: &'static str) -> Operand {
    let numbers = |list: &str| list.split(',').map(|n| n.parse().expect("a number")).collect::<Vec<i64>>();
    if text == "_" {
        return Operand::Hole;
    }
    if let Some(n) = text.strip_prefix('#') {
        return Operand::Fixed(Tensor::scalar(numbers(n)[0]));
    }
    if let Some(n) = text.strip_prefix('.') {
        let v: f32 = n.parse().expect("a number");
        return Operand::Fixed(Tensor::scalar(v));
    }
    if let Some(list) = text.strip_prefix('=') {
        // A column, not a row.
        let (list, column) = list.split_once('x').map_or((list, false), |(list, _)| (list, true));
        let v = numbers(list);
        let shape = if column { vec![v.len(), 1] } else { vec![v.len()] };
        return Operand::Fixed(Tensor::new(shape, v).expect("as many elements"));
    }
    let (dtype, shape) = text.trim_end_matches(']').split_once('[').expect("a type and a shape");
    let shape = shape.split(',').filter(|n| !n.is_empty()).map(|n| n.parse().expect("a size")).collect();
    Operand::Any(dtype, shape)
}

fn sample(name: &str, attributes: &str, operands: &'static str) -> Sample {
    let attributes = attributes.replace("WINDOW", WINDOW).replace("GROUPED", GROUPED).replace("RESIZE", RESIZE);
    let operands: Vec<Operand> = operands.split(' ').map(operand).collect();
    let mut inputs = Vec::new();
    for (i, o) in operands.iter().enumerate() {
        let (dtype, shape) = match o {
            Operand::Hole => continue,
            Operand::Fixed(t) => (t.dtype().to_string(), t.shape().to_vec()),
            Operand::Any(dtype, shape) => (dtype.trim_start_matches('+').to_owned(), shape.clone()),
        };
        inputs.push(format!("x{i}: {dtype}{shape:?}"));
    }
    let names: Vec<String> = operands
        .iter()
        .enumerate()
        .map(|(i, o)| if matches!(o, Operand::Hole) { "_".to_owned() } else { format!("x{i}") })
        .collect();
    let outputs = match name {
        "Split" | "TopK" => "%1, %2",
        "DynamicQuantizeLinear" => "%1, %2, %3",
        "Unique" => "%1, %2, %3, %4",
        "LayerNormalization" => "%1, %2, %3",
        _ => "%1",
    };
    let text = format!(
        "graph({}) {{\n  {outputs} = {name}({}) {{{attributes}}}\n  return %1 as y\n}}\n",
        inputs.join(", "),
        names.join(", ")
    );
    let graph = parse(&text).unwrap_or_else(|e| panic!("{text}\n{e}"));
    let op = graph.nodes().into_iter().find_map(|id| graph.node(id).op().cloned());
    Sample { op: op.expect("an operator"), operands }
}

/// Samples of every operator.
///
/// # Panics
/// If a line of the table is malformed.
#[must_use]
pub fn samples() -> Vec<Sample> {
    let mut out: Vec<Sample> = SAMPLES
        .lines()
        .filter(|l| !l.is_empty())
        .map(|line| {
            let mut fields = line.split('|');
            let mut next = || fields.next().expect("three fields");
            sample(next(), next(), next())
        })
        .collect();
    for kind in UnaryKind::ALL {
        let (alpha, beta) = kind.defaults();
        // The defaults, and numbers that turn an order or a sign.
        for (a, b) in
            [(alpha, beta), (alpha.map(|_| -0.75), beta.map(|_| 0.25)), (alpha.map(|_| 0.5), beta.map(|_| -0.5))]
        {
            let attrs: Vec<String> = [("alpha", a), ("beta", b)]
                .into_iter()
                .filter_map(|(name, v)| Some(format!("{name}={:?}", v?)))
                .collect();
            out.push(sample(kind.text(), &attrs.join(", "), "f32[3,5]"));
            if alpha.is_none() {
                break;
            }
        }
    }
    for kind in BinaryKind::ALL {
        out.push(sample(kind.text(), "", "f32[2,3] f32[2,3]"));
        if *kind != BinaryKind::PRelu {
            out.push(sample(kind.text(), "", "i32[2,3] i32[2,3]"));
        }
    }
    for kind in VariadicKind::ALL {
        out.push(sample(kind.text(), "", "f32[2,3] f32[2,3]"));
        out.push(sample(kind.text(), "", "f32[2,3] f32[2,3] f32[2,3]"));
    }
    for kind in ReduceKind::ALL {
        out.push(sample(kind.text(), "keepdims=0, noop_with_empty_axes=0", "f32[2,3,4] =0,2"));
    }
    for kind in GlobalPoolKind::ALL.iter().filter(|k| **k != GlobalPoolKind::Lp) {
        out.push(sample(kind.text(), "", "f32[1,2,4,5]"));
    }
    out.push(Sample {
        op: convc_runtime::ops::ConstantOfShape { value: Tensor::vector(vec![-2f32]) }.into(),
        operands: vec![Operand::Fixed(Tensor::vector(vec![2i64, 3]))],
    });
    out
}
