//! Average pooling as a convolution.

use convc_runtime::{
    Dim, Op,
    ops::{AveragePool, Conv},
    window::AutoPad,
};

use super::weights::{div, floats, ones};
use crate::rewrite::{
    rule::{Condition, Exactness, Phase, Rule, Verdict},
    types::Types,
    view::Expr,
};

const FULL_WINDOWS: Condition = Condition {
    name: "full-windows",
    text: "every window divides by the same number: padding is counted or absent, and no window hangs over the end or is left \
           out since it begins there",
};

pub(super) const WINDOW_FITS: Condition = Condition {
    name: "window-fits",
    text: "the map is never smaller than the window: ONNX Runtime's pools give an empty tensor there, and its convolutions an \
           error",
};

pub(super) fn window_fits(pool: &AveragePool, sizes: &[Dim]) -> Verdict {
    let n = pool.kernel_shape.len();
    for (a, size) in sizes.iter().enumerate() {
        let room = size + (pool.pads[a] + pool.pads[n + a] - pool.dilations[a] * (pool.kernel_shape[a] - 1) - 1);
        let reason = || format!("spatial axis {a} (size {size}) may be smaller than the window");
        match room.at_least(0) {
            Some(true) => {}
            Some(false) => return Verdict::Fails(reason()),
            None => return Verdict::Unknown(reason()),
        }
    }
    Verdict::Holds
}

/// Sound over the reals where every window is divided by the number of its taps.
/// Requires: fixed channels; `count_include_pad` or no padding; no last window that hangs over or begins behind the map
/// (`ceil_mode`); a map that is never smaller than the window.
/// Not sound for: windows at the border that are divided by fewer taps; sizes at which a pool is empty and a convolution fails.
/// Exactness: reassociated.
/// Pays: nothing by itself; the convolution merges with parallel and subsequent ones.
pub const AVGPOOL_AS_CONV: Rule = Rule {
    name: "avgpool-as-conv",
    equation: "AveragePool(x) => Conv(x, 1 / n; depthwise) where the kernel has `n` taps",
    conditions: &[FULL_WINDOWS, WINDOW_FITS],
    exactness: Exactness::Reassociated,
    types: Types::FLOATS,
    pays: "a convolution merges with parallel and subsequent ones",
    phase: Phase::Explore,
    folds: false,
    proposals: None,
    roots: &["AveragePool"],
    search: |cx, _, app| {
        let Op::AveragePool(pool) = app.op else { return };
        let view = cx.view;
        let Some(x) = app.operand(0) else { return };
        let Some(fact) = view.fact(x) else { return };
        let spatial = pool.kernel_shape.len();
        let Some(channels) = fact.shape.get(1).and_then(Dim::as_fixed).and_then(|c| usize::try_from(c).ok()) else {
            return;
        };
        if pool.auto_pad != AutoPad::NotSet || fact.rank() != spatial + 2 || channels == 0 {
            return;
        }
        let sizes = &fact.shape[2..];
        if !cx.require(FULL_WINDOWS.name, full_windows(pool, sizes))
            || !cx.require(WINDOW_FITS.name, window_fits(pool, sizes))
        {
            return;
        }
        let taps: Option<Vec<usize>> = pool.kernel_shape.iter().map(|&k| usize::try_from(k).ok()).collect();
        let Some(taps) = taps else { return };
        let count: usize = taps.iter().product();
        let shape: Vec<usize> = [channels, 1].into_iter().chain(taps).collect();
        // As a quotient it is rounded once, with the kernel it becomes part of.
        let weights = div(ones(fact.dtype, &shape), floats(fact.dtype, &[1], vec![count as f64]));
        let op = Conv {
            strides: pool.strides.clone(),
            pads: pool.pads.clone(),
            dilations: pool.dilations.clone(),
            group: channels as i64,
            auto_pad: AutoPad::NotSet,
        };
        cx.rewrite(Expr::of(app), Expr::op(op, vec![Some(x.into()), Some(weights), None]));
    },
};

fn full_windows(pool: &AveragePool, sizes: &[Dim]) -> Verdict {
    let n = pool.kernel_shape.len();
    if !pool.count_include_pad && pool.pads.iter().any(|&p| p != 0) {
        return Verdict::Fails("padding is not counted, so windows at the border divide by fewer taps".into());
    }
    if !pool.ceil_mode {
        return Verdict::Holds;
    }
    for (a, size) in sizes.iter().enumerate() {
        // With ceil_mode a window that begins behind the map does not count; a convolution's does.
        if pool.pads[n + a] > pool.dilations[a] * (pool.kernel_shape[a] - 1) {
            return Verdict::Fails(format!("the last window of spatial axis {a} may begin in the padding"));
        }
        let room = size + (pool.pads[a] + pool.pads[n + a] - pool.dilations[a] * (pool.kernel_shape[a] - 1) - 1);
        match room.divisible_by(pool.strides[a]) {
            Some(true) => {}
            Some(false) => return Verdict::Fails(format!("the last window hangs over the end of spatial axis {a}")),
            None => {
                return Verdict::Unknown(format!(
                    "whether the last window of spatial axis {a} (size {size}) hangs over is open"
                ));
            }
        }
    }
    Verdict::Holds
}

/// The rules of this file.
pub const RULES: &[&Rule] = &[&AVGPOOL_AS_CONV];
