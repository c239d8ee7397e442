//! Self-calibrated convolutions.

use convc_runtime::{
    Dim, Op,
    ops::{
        AveragePool, Resize, SCConv,
        binary::BinaryKind,
        resize::{AspectPolicy, CoordinateMode, NearestMode, ResizeMode},
        unary::UnaryKind,
    },
    window::AutoPad,
};

use super::{
    super::{
        affine::equal_shapes,
        read::conv::{ConvAt, conv_at, convs_in},
    },
    pairs, spelt, unaries,
};
use crate::rewrite::{
    rule::{Condition, Cx, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::{App, Class, Expr, View},
};

const ONE_INPUT: Condition = Condition {
    name: "one-input",
    text: "what is pooled, what is convolved and what is added in the gate are one value",
};
const TILES: Condition = Condition {
    name: "tiles",
    text: "the average is that of tiles, of the same side along each axis, which lie side by side from the first element on; \
           what is left over at the end is dropped",
};
const NEAREST: Condition = Condition {
    name: "nearest",
    text: "the pooled map is brought to the input's sizes, and element i of O is taken from element floor(i I / O) of I",
};
const ONE_WINDOW: Condition = Condition {
    name: "one-window",
    text: "the three convolutions have the same padding, dilation and number of groups; those of the input and the pooled \
           map have stride 1 and give the shape of what they read",
};

/// Sound bit for bit: it is the operator's definition.
/// Requires: constant kernels; r need not divide the sizes.
/// Nearest elements may be asked for by sizes or by scales. At every size `asymmetric` with `floor` is the definition's map;
/// where r divides the sizes, so are the `half_pixel` modes with a rounding one, and `tf_half_pixel_for_nn` with `floor`; at
/// fixed sizes whatever gives the same elements.
/// Not sound for: other interpolation; a last tile that hangs over the end; padding in the average.
/// Exactness: bitwise.
/// Pays: one operator; the gate is applied while the convolution's rows are at hand.
pub const SC_CONV: Rule = Rule {
    name: "sc-conv",
    equation: "Conv(Conv(x, w3, b3?) * Sigmoid(x + resized(Conv(AveragePool(x), w2, b2?))), w4, b4?) => SCConv(x, w2, b2?, w3, \
               b3?, w4, b4?)",
    conditions: &[ONE_INPUT, TILES, NEAREST, ONE_WINDOW],
    exactness: Exactness::Bitwise,
    types: Types::FLOATS,
    pays: "one operator; the gate is applied while the convolution's rows are at hand",
    phase: Phase::Recognise,
    folds: false,
    proposals: None,
    roots: &["Conv"],
    search: |cx, _, app| {
        let view = cx.view;
        let Some(last) = conv_at(view, app) else { return };
        for product in pairs(view, last.x, BinaryKind::Mul) {
            let gates: Vec<Gate<'_>> = gates(view, product.other);
            for body in convs_in(view, product.one) {
                for gate in &gates {
                    cx.begin();
                    let Some(op) = calibrated(cx, gate, &body, &last) else { continue };
                    let lhs = Expr::of(app).with_operand(0, product.expr(body.expr(), gate.expr.clone()));
                    let w = |c: &ConvAt<'_>| Some(c.kernel.weights.clone());
                    let b = |c: &ConvAt<'_>| c.bias.map(Expr::Class);
                    let operands =
                        vec![Some(gate.x.into()), w(&gate.conv), b(&gate.conv), w(&body), b(&body), w(&last), b(&last)];
                    cx.rewrite(lhs, Expr::op(op, operands));
                }
            }
        }
    },
};

/// `sigmoid(x + up(conv(pool(pooled))))`.
struct Gate<'a> {
    x: Class,
    pooled: Class,
    pool: &'a AveragePool,
    conv: ConvAt<'a>,
    up: Up<'a>,
    expr: Expr,
}

/// A Resize and what it is about.
struct Up<'a> {
    app: App<'a>,
    op: &'a Resize,
    from: Class,
    to: Class,
}

/// The gates in a class.
fn gates<'v>(view: &'v dyn View, class: Class) -> Vec<Gate<'v>> {
    let mut out = Vec::new();
    for sigmoid in unaries(view, class, UnaryKind::Sigmoid) {
        let Some(inner) = sigmoid.operand(0) else { continue };
        for sum in pairs(view, inner, BinaryKind::Add) {
            for up in view.apps(sum.other) {
                let (Op::Resize(op), Some(from)) = (up.op, up.operand(0)) else { continue };
                for conv in convs_in(view, from) {
                    let Some((pool, average, pooled)) = view.apps(conv.x).into_iter().find_map(average) else {
                        continue;
                    };
                    let small = conv.expr().with_operand(0, Expr::of(&pool));
                    let large = Expr::of(&up).with_operand(0, small);
                    // Sizes reckoned from the maps go with them.
                    let sizes = up.operand(3).and_then(|s| spelt(view, s, &[sum.one, pooled], 64));
                    let large = match sizes {
                        Some(sizes) => large.with_operand(3, sizes),
                        None => large,
                    };
                    out.push(Gate {
                        x: sum.one,
                        pooled,
                        pool: average,
                        conv,
                        up: Up { app: up.clone(), op, from, to: sum.other },
                        expr: Expr::of(&sigmoid).with_operand(0, sum.expr(sum.one.into(), large)),
                    });
                }
            }
        }
    }
    out
}

fn average<'a>(app: App<'a>) -> Option<(App<'a>, &'a AveragePool, Class)> {
    let Op::AveragePool(op) = app.op else { return None };
    let x = app.operand(0)?;
    Some((app, op, x))
}

/// The operator, if all conditions hold.
fn calibrated(cx: &mut Cx<'_>, gate: &Gate<'_>, body: &ConvAt<'_>, last: &ConvAt<'_>) -> Option<SCConv> {
    let view = cx.view;
    let verdict = if body.x != gate.x {
        Verdict::Fails("what is added in the gate is not what is convolved".into())
    } else if gate.pooled != gate.x {
        Verdict::Fails("what is pooled is not what is convolved".into())
    } else {
        Verdict::Holds
    };
    if !cx.require(ONE_INPUT.name, verdict) {
        return None;
    }
    let sizes = view.fact(gate.x)?.shape.get(2..)?;
    if !cx.require(TILES.name, tiles(gate.pool, sizes)) {
        return None;
    }
    let r = *gate.pool.kernel_shape.first()?;
    if !cx.require(NEAREST.name, nearest(view, &gate.up, gate.x, r)) {
        return None;
    }
    let verdict = one_window(view, gate, body, last);
    if !cx.require(ONE_WINDOW.name, verdict) {
        return None;
    }
    let n = last.spatial();
    // A kernel of one tap has no dilation to speak of.
    let dilations = (0..n).map(|a| {
        let of = [last, body, &gate.conv].into_iter().find(|c| c.kernel.taps[a] > 1).unwrap_or(last);
        of.op.dilations[a]
    });
    Some(SCConv {
        pool_size: r,
        strides: last.op.strides.clone(),
        pads: last.op.pads.clone(),
        dilations: dilations.collect(),
        group: last.op.group,
    })
}

/// Whether the average is of tiles of one side that lie side by side.
fn tiles(pool: &AveragePool, sizes: &[Dim]) -> Verdict {
    let Some(&r) = pool.kernel_shape.first() else { return Verdict::Fails("it pools no axis".into()) };
    if pool.kernel_shape.iter().chain(&pool.strides).any(|n| *n != r) {
        return Verdict::Fails(format!("windows of {:?} in steps of {:?}", pool.kernel_shape, pool.strides));
    }
    if r > 1 && pool.dilations.iter().any(|d| *d != 1) {
        return Verdict::Fails(format!("the windows have dilations {:?}", pool.dilations));
    }
    if pool.auto_pad != AutoPad::NotSet || pool.pads.iter().any(|p| *p != 0) {
        return Verdict::Fails("the map is padded before it is averaged".into());
    }
    if !pool.ceil_mode {
        return Verdict::Holds;
    }
    for (a, size) in sizes.iter().enumerate() {
        match size.divisible_by(r) {
            Some(true) => {}
            Some(false) => return Verdict::Fails(format!("the last tile hangs over the end of spatial axis {a}")),
            None => return Verdict::Unknown(format!("whether a tile hangs over the end of spatial axis {a} is open")),
        }
    }
    Verdict::Holds
}

/// Whether `up` takes the definition's elements to the sizes of `x`, r being the side of the tiles.
fn nearest(view: &dyn View, up: &Up<'_>, x: Class, r: i64) -> Verdict {
    let (op, scales) = (up.op, up.app.operand(2));
    if op.mode != ResizeMode::Nearest {
        return Verdict::Fails("it interpolates between elements".into());
    }
    if scales.is_none() && op.keep_aspect_ratio_policy != AspectPolicy::Stretch {
        return Verdict::Fails("one scale is found for all axes".into());
    }
    match equal_shapes(view, up.to, x) {
        Some(true) => {}
        Some(false) => return Verdict::Fails("it is brought to other sizes than the input's".into()),
        None => return Verdict::Unknown("whether it is brought to the input's sizes is open".into()),
    }
    let (Some(from), Some(to)) = (view.fact(up.from), view.fact(up.to)) else {
        return Verdict::Unknown("the shapes are not known".into());
    };
    let scales = match scales {
        None => None,
        Some(s) => match view.fact(s).and_then(|f| f.f64s()) {
            Some(s) => Some(s),
            None => return Verdict::Unknown("the scales are not known".into()),
        },
    };
    for a in 0..to.rank() {
        let scale = match (&scales, op.place_of(a, to.rank())) {
            (Some(s), Some(i)) => s.get(i).copied(),
            _ => None,
        };
        match same_elements(op, &from.shape[a], &to.shape[a], scale, r) {
            Some(true) => {}
            Some(false) => return Verdict::Fails(format!("other elements are nearest along axis {a}")),
            None => return Verdict::Unknown(format!("whether other elements are nearest along axis {a} is open")),
        }
    }
    Verdict::Holds
}

/// Whether along one axis the elements are those that asymmetric coordinates by both sizes, rounded down, would take.
fn same_elements(op: &Resize, from: &Dim, to: &Dim, scale: Option<f64>, r: i64) -> Option<bool> {
    if let (Some(i), Some(o)) = (from.as_fixed(), to.as_fixed()) {
        let (i, o) = (usize::try_from(i).ok()?, usize::try_from(o).ok()?);
        if o <= 1 << 20 {
            return Some(op.nearest_elements(i, o, scale)? == Resize::nearest().nearest_elements(i, o, None)?);
        }
    }
    use CoordinateMode::{Asymmetric, HalfPixel, HalfPixelSymmetric, PytorchHalfPixel, TfHalfPixelForNn};
    use NearestMode::{Floor, RoundPreferCeil, RoundPreferFloor};
    let modes = (op.coordinate_transformation_mode, op.nearest_mode);
    if modes == (Asymmetric, Floor) && scale.is_none() {
        return Some(true);
    }
    // With a whole ratio every coordinate of a tile lies nearest to the tile's element.
    let ratio = [1, r].into_iter().find(|k| (from * *k).equals(to) == Some(true))?;
    if scale.is_some_and(|s| s != ratio as f64) {
        return None;
    }
    let fits = match modes {
        (Asymmetric | TfHalfPixelForNn, Floor)
        | (HalfPixel | HalfPixelSymmetric | PytorchHalfPixel, RoundPreferCeil | RoundPreferFloor) => true,
        _ => ratio == 1 && modes.0 == Asymmetric,
    };
    fits.then_some(true)
}

fn one_window(view: &dyn View, gate: &Gate<'_>, body: &ConvAt<'_>, last: &ConvAt<'_>) -> Verdict {
    for (what, c) in [("on the pooled map", &gate.conv), ("on the input", body)] {
        if c.op.group != last.op.group {
            return Verdict::Fails(format!(
                "the convolution {what} has {} groups, the last {}",
                c.op.group, last.op.group
            ));
        }
        if c.op.strides.iter().any(|s| *s != 1) {
            return Verdict::Fails(format!("the convolution {what} has strides {:?}", c.op.strides));
        }
        if c.op.pads != last.op.pads {
            return Verdict::Fails(format!(
                "the convolution {what} has pads {:?}, the last {:?}",
                c.op.pads, last.op.pads
            ));
        }
        for a in 0..c.spatial() {
            let reach = c.op.dilations[a] * (c.kernel.taps[a] - 1);
            if c.pad_begin(a) + c.pad_end(a) != reach {
                return Verdict::Fails(format!("the convolution {what} changes the size of spatial axis {a}"));
            }
        }
        if view.fact(gate.x).and_then(|f| f.shape.get(1)?.as_fixed()) != Some(c.kernel.outputs) {
            return Verdict::Fails(format!("the convolution {what} gives another number of channels than the input's"));
        }
    }
    for a in 0..last.spatial() {
        let mut steps =
            [&gate.conv, body, last].into_iter().filter(|c| c.kernel.taps[a] > 1).map(|c| c.op.dilations[a]);
        if let Some(first) = steps.next()
            && let Some(other) = steps.find(|s| *s != first)
        {
            return Verdict::Fails(format!("dilations {first} and {other} along spatial axis {a}"));
        }
    }
    Verdict::Holds
}

/// The rules of this file.
pub const RULES: &[&Rule] = &[&SC_CONV];
