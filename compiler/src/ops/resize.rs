//! Resampling. Upsample (opsets 7 and 9) and Resize of opset 10 are Resize with coordinates `asymmetric` and nearest mode
//! `floor`; opset 11 has today's form, 18 adds `antialias`, `axes` and `keep_aspect_ratio_policy`.

use convc_runtime::{
    AttrValue, DType, Tensor,
    attrs::Attribute,
    ops::{
        Resize,
        resize::{AspectPolicy, CoordinateMode, NearestMode, ResizeMode},
    },
};

use super::{
    ExportError, ImportError, NodeReader, NodeWriter, OnnxOperator,
    max_pool::read_flag,
    properties::{Movement, Nonnegative, Operands, Properties},
};
use crate::ir::Value;

const CUBIC_A: f32 = -0.75;

/// Takes an enumeration out, `default` if it is not given.
fn read_enum<T: Attribute>(node: &mut NodeReader<'_>, name: &str, default: T) -> Result<T, ImportError> {
    match node.take(name) {
        None => Ok(default),
        Some(v) => T::from_value(Some(v)).map_err(|e| ImportError::Invalid(format!("attribute {name}: {e}"))),
    }
}

/// An operand, unless it certainly has no elements.
fn nonempty(node: &NodeReader<'_>, index: usize) -> Option<Value> {
    let empty = node.fact(index).is_some_and(|f| f.element_count().as_fixed() == Some(0));
    node.operand(index).filter(|_| !empty)
}

impl OnnxOperator for Resize {
    const READS: &'static [&'static str] = &["Resize", "Upsample"];
    const EXECUTED: &'static [super::Executed] = &[
        ("Resize", 10, types![F32, F16, I8, I32, U8]),
    ];

    fn from_onnx(node: &mut NodeReader<'_>) -> Result<Vec<Value>, ImportError> {
        let x = node.required(0, "X")?;
        let mode = read_enum(node, "mode", ResizeMode::Nearest)?;
        let simple = Resize { mode, ..Resize::nearest() };
        if node.op_type() == "Upsample" && node.opset() < 9 {
            let scales = node
                .floats("scales")?
                .ok_or_else(|| ImportError::Invalid("attribute scales of Upsample is missing".into()))?;
            node.finish()?;
            let scales = node.add_constant(&Tensor::vector(scales))?;
            return node.emit(simple, vec![Some(x), None, Some(scales)]);
        }
        if node.op_type() == "Upsample" || node.opset() < 11 {
            let scales = node.required(1, "scales")?;
            return node.emit(simple, vec![Some(x), None, Some(scales)]);
        }
        let coordinate_transformation_mode =
            read_enum(node, "coordinate_transformation_mode", CoordinateMode::HalfPixel)?;
        let op = Resize {
            mode,
            coordinate_transformation_mode,
            nearest_mode: read_enum(node, "nearest_mode", NearestMode::RoundPreferFloor)?,
            cubic_coeff_a: node.float("cubic_coeff_a")?.unwrap_or(CUBIC_A),
            exclude_outside: read_flag(node, "exclude_outside")?,
            extrapolation_value: node.float("extrapolation_value")?.unwrap_or(0.0),
            antialias: read_flag(node, "antialias")?,
            axes: node.ints("axes")?.map(|a| node.all_from_front(a, 0)).unwrap_or_default(),
            keep_aspect_ratio_policy: read_enum(node, "keep_aspect_ratio_policy", AspectPolicy::Stretch)?,
        };
        let crops = coordinate_transformation_mode == CoordinateMode::TfCropAndResize;
        let roi = nonempty(node, 1).filter(|_| crops);
        let operands = vec![Some(x), roi, nonempty(node, 2), nonempty(node, 3)];
        node.emit(op, operands)
    }

    fn to_onnx(&self, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
        if node.opset() < 11 {
            return write_simple(self, node);
        }
        let attrs = write_attrs(self, node)?;
        let mut inputs = node.operand_names();
        if node.opset() < 13 {
            // There the operands are required, and empty ones stand for nothing.
            for i in 1..inputs.len().max(3) {
                if inputs.get(i).is_none_or(String::is_empty) {
                    let none = node.constant(if i == 1 { "roi" } else { "scales" }, Tensor::vector(Vec::<f32>::new()));
                    if i < inputs.len() { inputs[i] = none } else { inputs.push(none) }
                }
            }
        }
        let outputs = node.output_names();
        node.node("Resize", inputs, outputs, attrs);
        Ok(())
    }

    fn properties(&self) -> Properties {
        let crops = self.coordinate_transformation_mode == CoordinateMode::TfCropAndResize;
        // A size is the floor of a product with a scale.
        let resampled = Properties::unknown();
        if crops {
            return resampled;
        }
        let averages = self.mode != ResizeMode::Cubic && !self.antialias;
        let nonnegative = if averages { Operands::FIRST } else { Operands::None };
        Properties {
            linear: Operands::FIRST,
            zeros: Operands::FIRST,
            nonnegative: Nonnegative::Where(nonnegative),
            monotone: averages,
            movement: if self.mode == ResizeMode::Nearest && averages { Movement::Picks } else { Movement::Computes },
            ..resampled
        }
    }
}

/// The attributes of opset 11 and later, with ONNX's defaults left out.
fn write_attrs(op: &Resize, node: &NodeWriter<'_>) -> Result<Vec<(&'static str, AttrValue)>, ExportError> {
    let mut attrs = Vec::new();
    let mut text = |name, text: &str| attrs.push((name, AttrValue::Str(text.to_owned())));
    let coordinates = op.coordinate_transformation_mode;
    match coordinates {
        CoordinateMode::TfHalfPixelForNn if node.opset() >= 13 => {
            return Err(node.refuse("tf_half_pixel_for_nn ends with opset 12"));
        }
        CoordinateMode::HalfPixelSymmetric if node.opset() < 19 => {
            return Err(node.refuse("half_pixel_symmetric needs opset 19"));
        }
        _ => {}
    }
    if op.mode != ResizeMode::Nearest {
        text("mode", op.mode.text());
    }
    if coordinates != CoordinateMode::HalfPixel {
        text("coordinate_transformation_mode", coordinates.text());
    }
    if op.nearest_mode != NearestMode::RoundPreferFloor {
        text("nearest_mode", op.nearest_mode.text());
    }
    let stretch = op.keep_aspect_ratio_policy == AspectPolicy::Stretch;
    if !stretch {
        text("keep_aspect_ratio_policy", op.keep_aspect_ratio_policy.text());
    }
    if node.opset() < 18 && !(stretch && op.axes.is_empty() && !op.antialias) {
        return Err(node.refuse("antialias, axes and keep_aspect_ratio_policy need opset 18"));
    }
    if op.cubic_coeff_a != CUBIC_A {
        attrs.push(("cubic_coeff_a", AttrValue::Float(op.cubic_coeff_a)));
    }
    if op.exclude_outside {
        attrs.push(("exclude_outside", AttrValue::Int(1)));
    }
    if op.extrapolation_value != 0.0 {
        attrs.push(("extrapolation_value", AttrValue::Float(op.extrapolation_value)));
    }
    if op.antialias {
        attrs.push(("antialias", AttrValue::Int(1)));
    }
    if !op.axes.is_empty() {
        attrs.push(("axes", AttrValue::Ints(op.axes.clone())));
    }
    Ok(attrs)
}

/// Opset 10 and earlier: scales only, asymmetric coordinates, the next lower element.
fn write_simple(op: &Resize, node: &mut NodeWriter<'_>) -> Result<(), ExportError> {
    let simple = Resize { mode: op.mode, ..Resize::nearest() };
    let nearest_mode = if op.mode == ResizeMode::Nearest { op.nearest_mode } else { NearestMode::Floor };
    let same = Resize { nearest_mode, cubic_coeff_a: simple.cubic_coeff_a, ..op.clone() } == simple;
    if !same || op.mode == ResizeMode::Cubic {
        return Err(node.refuse("there it is nearest or linear, asymmetric, and rounds down"));
    }
    let Some(x) = node.operand(0).map(|o| o.name.to_owned()) else {
        return Err(node.refuse("its input is missing"));
    };
    let known = known_scales(node);
    let floats = |scales: &[f32]| AttrValue::Floats(scales.to_vec());
    let mut attrs = vec![("mode", AttrValue::Str(op.mode.text().to_owned()))];
    let op_type = if node.opset() < 10 { "Upsample" } else { "Resize" };
    // Scales that only the data decides come from an Upsample, which promises that none is below 1.
    if node.opset() < 10 && known.as_ref().map_or(node.opset() < 9, |s| s.iter().any(|&s| s < 1.0)) {
        return Err(node.refuse("Upsample needs known scales of at least 1"));
    }
    let mut inputs = vec![x];
    match (known, node.operand(2).map(|o| o.name.to_owned())) {
        (Some(scales), _) if node.opset() < 9 => attrs.push(("scales", floats(&scales))),
        (_, Some(scales)) => inputs.push(scales),
        (Some(scales), None) => inputs.push(node.constant("scales", Tensor::vector(scales))),
        (None, None) => return Err(node.refuse("its sizes must be known there, to be written as scales")),
    }
    let outputs = node.output_names();
    node.node(op_type, inputs, outputs, attrs);
    Ok(())
}

/// The scales: as they are given, or those that give exactly the sizes of the output.
fn known_scales(node: &NodeWriter<'_>) -> Option<Vec<f32>> {
    if let Some(scales) = node.operand(2) {
        let t = scales.constant?.to_tensor().ok()?.rounded_to(DType::F32);
        return t.as_slice::<f32>().map(<[f32]>::to_vec);
    }
    let (x, y) = (node.operand(0)?.fact?.shape.clone(), node.output_fact(0)?.shape.clone());
    x.iter()
        .zip(&y)
        .map(|(n, m)| {
            if n == m {
                return Some(1.0);
            }
            let (n, m) = (n.as_fixed()? as f32, m.as_fixed()? as f32);
            let scale = m / n;
            (scale.is_finite() && (n * scale).floor() == m).then_some(scale)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use convc_runtime::{Dim, Fact};

    use super::*;
    use crate::ops::testing::{Arg, int, ints, read_args, string, write, write_all};

    fn x() -> Arg {
        Arg::Input(Fact::fixed(DType::F32, &[1, 3, 4, 6]))
    }

    fn scales(v: &[f32]) -> Arg {
        Arg::Constant(Tensor::vector(v.to_vec()))
    }

    #[test]
    fn upsample_is_resize() {
        let attrs = vec![string("mode", "linear"), ("scales".to_owned(), AttrValue::Floats(vec![1.0, 1.0, 2.0, 1.5]))];
        let (graph, y) = read_args("Upsample", 7, &[x()], attrs.clone(), 1).unwrap();
        assert_eq!(graph.fact(y[0]).unwrap().to_string(), "f32[1, 3, 8, 9]");
        let nodes = write(&graph, y[0], 7).unwrap();
        assert_eq!((nodes[0].op_type.as_str(), &nodes[0].attrs), ("Upsample", &attrs));
        let nodes = write(&graph, y[0], 9).unwrap();
        assert_eq!((nodes[0].op_type.as_str(), nodes[0].inputs.len()), ("Upsample", 2));
        let nodes = write(&graph, y[0], 10).unwrap();
        assert_eq!((nodes[0].op_type.as_str(), nodes[0].inputs.len()), ("Resize", 2));
    }

    #[test]
    fn operands_without_elements_are_left_out() {
        let sizes = Arg::Constant(Tensor::vector(vec![1i64, 3, 8, 12]));
        let attrs = vec![string("coordinate_transformation_mode", "asymmetric"), string("nearest_mode", "floor")];
        let args = [x(), scales(&[]), scales(&[]), sizes];
        let (graph, y) = read_args("Resize", 11, &args, attrs.clone(), 1).unwrap();
        assert_eq!(graph.node(y[0].node).operands().iter().flatten().count(), 2);
        let (nodes, constants) = write_all(&graph, y[0].node, 11).unwrap();
        assert_eq!((nodes[0].inputs.len(), constants.len(), &nodes[0].attrs), (4, 2, &attrs));
        let nodes = write(&graph, y[0], 13).unwrap();
        assert!(nodes[0].inputs[1].is_empty() && nodes[0].inputs[2].is_empty());
        let (nodes, constants) = write_all(&graph, y[0].node, 9).unwrap();
        assert_eq!(nodes[0].op_type, "Upsample");
        assert_eq!(constants[0].1.as_slice::<f32>().unwrap(), [1.0, 1.0, 2.0, 2.0]);
    }

    #[test]
    fn what_old_opsets_cannot_say() {
        let attrs = vec![int("antialias", 1), string("mode", "linear"), ints("axes", &[2, 3])];
        let (graph, y) = read_args("Resize", 18, &[x(), Arg::Hole, scales(&[0.5, 0.5])], attrs.clone(), 1).unwrap();
        let mut sorted = write(&graph, y[0], 18).unwrap().swap_remove(0).attrs;
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(sorted, [attrs[0].clone(), attrs[2].clone(), attrs[1].clone()]);
        for opset in [9, 10, 17] {
            assert!(write(&graph, y[0], opset).is_err());
        }
        let symbolic = Arg::Input(Fact::new(DType::F32, [Dim::from(1), Dim::symbol("C")]));
        let (graph, y) = read_args("Resize", 10, &[symbolic, scales(&[1.0, 2.0])], vec![], 1).unwrap();
        assert_eq!(graph.fact(y[0]).unwrap().to_string(), "f32[1, 2*C]");
        assert!(write(&graph, y[0], 9).is_ok());
    }
}
