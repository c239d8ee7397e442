//! Every rule on random graphs made from its left side: where it fires, the result is that of the original for all values of
//! the symbols; where a condition stops it, counting the condition as holding would give wrong numbers at least once.
//!
//! `CONVC_CASES` sets how many firing cases each rule is tried on, 200 if it is not given.

use std::collections::{BTreeMap, BTreeSet};

use convc::{
    ir::text::{parse, print},
    rewrite::{
        rule::{Phase, Rule},
        rules as registry,
    },
};
use convc_runtime::scalar::Field;
use convc_tests::{
    agree::agree,
    oracle::Number,
    random::{self, Rng},
    rules::apply,
    types,
};

/// How results are compared.
#[derive(Clone, Copy)]
enum Numbers {
    /// Exactly, in GF(2^61 - 1).
    Field,
    /// In f64, within 1e-12 of the largest element: for rules about order, or whose constants are no dyadic fractions.
    Float,
    /// In f64, within 1e-6 of the largest element: for operators whose own constants are rounded to f32.
    Rounded,
}

struct Subject {
    rule: &'static str,
    numbers: Numbers,
    generate: fn(&mut Rng) -> String,
    /// Conditions that guard against rounding, or against sizes that only another runtime runs at, not against a wrong formula:
    /// forcing them changes nothing here.
    rounding: &'static [&'static str],
}

macro_rules! subjects {
    ($($name:ident: $rule:literal $numbers:ident $generate:expr $(, rounding $rounding:expr)?;)*) => {
        /// Every rule with its generator.
        const SUBJECTS: &[Subject] = &[$(Subject {
            rule: $rule,
            numbers: Numbers::$numbers,
            generate: $generate,
            rounding: [$($rounding as &[&str],)? &[]][0],
        }),*];

        $(#[test]
        fn $name() {
            check($rule);
        })*
    };
}

subjects! {
    identity: "identity" Field random::identities;
    add_zero: "add-zero" Field |r| random::neutral(r, &["Add", "Sub"], 0);
    mul_one: "mul-one" Field |r| random::neutral(r, &["Mul", "Div"], 1);
    fill_as_scalar: "fill-as-scalar" Field random::fills;
    cast_same: "cast-same" Field random::casts;
    relu_relu: "relu-relu" Float random::relus;
    concat_one: "concat-one" Field random::concats;
    view_same: "view-same" Field random::view;
    static_reshape: "static-reshape" Field random::computed_reshape;
    view_view: "view-view" Field random::views;
    transpose_same: "transpose-same" Field random::transpose;
    transpose_transpose: "transpose-transpose" Field random::transposes;
    transpose_as_view: "transpose-as-view" Field random::transpose_of_ones;
    slice_all: "slice-all" Field random::slices;
    gather_as_view: "gather-as-view" Field random::gathers;
    pad_none: "pad-none" Field random::pads;
    bn_as_conv: "bn-as-conv" Field random::batch_norm, rounding &["scale-is-sane"];
    scale_as_conv: "scale-as-conv" Field |r| random::per_channel(r, &["Mul", "Div"]), rounding &["finite-scale"];
    shift_as_conv: "shift-as-conv" Field |r| random::per_channel(r, &["Add", "Sub"]);
    pad_into_conv: "pad-into-conv" Field random::pad_conv;
    border_of_bias: "border-of-bias" Field |r| random::filled_border(r, true);
    border_map: "border-map" Field random::constant_border;
    border_fill: "border-fill" Field |r| random::filled_border(r, false);
    pad_into_maxpool: "pad-into-maxpool" Float random::pad_max_pool;
    activation_before_maxpool: "activation-before-maxpool" Float random::pooled_activation;
    maxpool_maxpool: "maxpool-maxpool" Float random::pool_of_pool;
    max_as_clip: "max-as-clip" Float random::extremes;
    clip_clip: "clip-clip" Float random::clamps;
    relu_nonnegative: "relu-nonnegative" Float random::relu_of_nonnegative;
    pad_pad: "pad-pad" Field random::pad_of_pad;
    reduce_reduce: "reduce-reduce" Float random::reductions;
    hard_swish: "hard-swish" Rounded random::hard_swish;
    swish: "swish" Rounded random::swish;
    mish: "mish" Rounded random::mish;
    gelu: "gelu" Rounded random::gelu;
    hard_sigmoid: "hard-sigmoid" Rounded random::hard_sigmoid;
    mean_before_pointwise: "mean-before-pointwise" Float |r| random::mean_of(r, true);
    mean_of_scaled: "mean-of-scaled" Float |r| random::mean_of(r, false);
    pointwise_after_transposed: "pointwise-after-transposed" Field |r| random::transposed(r, false);
    pointwise_before_transposed: "pointwise-before-transposed" Field |r| random::transposed(r, true);
    pool_before_pointwise: "pool-before-pointwise" Float |r| random::pointwise_and_average(r, false), rounding &["window-fits"];
    pointwise_before_pool: "pointwise-before-pool" Float |r| random::pointwise_and_average(r, true);
    pointwise_before_resize: "pointwise-before-resize" Float random::resize_conv;
    bn_into_product: "bn-into-product" Field random::normalised_product, rounding &["scale-is-sane"];
    bn_into_rows: "bn-into-rows" Field random::normalised_rows, rounding &["scale-is-sane"];
    scale_before_rows: "scale-before-rows" Field random::rows_of_scaled;
    bn_before_product: "bn-before-product" Field random::product_of_normalised, rounding &["scale-is-sane"];
    product_add: "product-add" Field random::products_of_one;
    avgpool_as_conv: "avgpool-as-conv" Float random::average_pool, rounding &["window-fits"];
    conv_compose: "conv-compose" Field random::chain, rounding &["finite-elements"];
    split_attention: "split-attention" Float random::attention;
    branch_add: "branch-add" Field random::branches, rounding &["finite-elements"];
    slice_out: "slice-out" Field random::slice_of_conv;
    slice_in: "slice-in" Field random::conv_of_channels, rounding &["finite-elements"];
    map_slice: "map-slice" Float random::map_of_slice;
    slice_map: "slice-map" Float random::slice_of_map;
    stride_slice: "stride-slice" Field random::space_of_conv;
    stride_in: "stride-in" Field random::conv_of_space, rounding &["finite-elements"];
    tap_crop: "tap-crop" Field random::crop_taps;
    focus: "focus" Field random::blocks;
    cat_out: "cat-out" Field random::cat_conv, rounding &["finite-elements"];
    concat_map: "concat-map" Float random::cat_maps;
    cat_group: "cat-group" Field random::cat_groups;
    cat_in_split: "cat-in-split" Field random::cat_in;
    join_slices: "join-slices" Field random::cat_slices;
    perm_fold: "perm-fold" Field random::conv_of_permuted;
    perm_out: "perm-out" Field random::permuted_conv;
    perm_map: "perm-map" Float random::permuted_map;
    h_merge: "h-merge" Field random::slice_of_siblings;
    group_dense: "group-dense" Field random::block_diagonal;
    do_conv_constant: "do-conv-constant" Field random::do_conv;
    concat_of_concat: "concat-of-concat" Field random::concat_of_concat;
    slice_of_concat: "slice-of-concat" Field random::slice_of_concat;
    swarm_into_conv: "swarm-into-conv" Field random::conv_of_blocks;
    swarm_as_space_to_depth: "swarm-as-space-to-depth" Field random::space_to_depth;
    involution: "involution" Field random::involutions;
    ghost_module: "ghost-module" Field random::ghost;
    sc_conv: "sc-conv" Float random::self_calibrated;
    mixed_conv_samples: "mixed-conv-samples" Field random::mixed_samples;
    mixed_conv_experts: "mixed-conv-experts" Field random::mixed_experts;
    mixed_conv_single: "mixed-conv-single" Field random::mixed_single;
    mixed_conv_groups: "mixed-conv-groups" Field random::mixed_groups;
    mixed_linear: "mixed-linear" Field random::mixed_linear;
    mixed_conv_affine: "mixed-conv-affine" Float random::mixed_affine;
    mixed_conv_bias: "mixed-conv-bias" Field random::mixed_bias;
    mixed_conv_constant: "mixed-conv-constant" Float random::mixed_constant;
    conv_behind_mixed: "conv-behind-mixed" Float |r| random::mixed_chain(r, true), rounding &["finite-elements"];
    conv_before_mixed: "conv-before-mixed" Float |r| random::mixed_chain(r, false), rounding &["finite-elements"];
    conv_samples: "conv-samples" Field random::conv_samples;
    conv_of_folded_batch: "conv-of-folded-batch" Field random::folded_batch;
    constant_of_batch: "constant-of-batch" Field random::constant_rows;
    scale_into_matmul: "scale-into-matmul" Field random::scaled_product, rounding &["finite-scale"];
    scale_past_view: "scale-past-view" Field random::scaled_view, rounding &["finite-scale"];
}

#[test]
fn every_rule_is_tried() {
    let tried: BTreeSet<&str> = SUBJECTS.iter().map(|s| s.rule).collect();
    let registered: BTreeSet<&str> = registry::all().iter().map(|r| r.name).collect();
    assert_eq!(tried, registered, "SUBJECTS lists every registered rule, with a generator of its left side");
}

/// At every element type that a rule declares it fires, and gives what the oracle gives at that type; at others it does not.
#[test]
fn every_rule_at_every_type() {
    let wanted = 12;
    let mut problems = Vec::new();
    for s in SUBJECTS {
        let rule = registry::find(s.rule).expect("the rule is registered");
        let declared = types::declared(rule.types);
        for dtype in types::tried() {
            let most = if declared.contains(&dtype) { 2000 } else { 60 };
            match types::at_type(rule, s.generate, dtype, wanted, most) {
                Err(e) => problems.push(e),
                Ok(at) if declared.contains(&dtype) && at.compared == 0 => {
                    problems.push(format!("{} never fires at {dtype}, which it declares: {at:?}", rule.name));
                }
                Ok(at) if !declared.contains(&dtype) && at.fired > 0 => {
                    problems.push(format!("{} fires at {dtype}, which it does not declare", rule.name));
                }
                Ok(at) if at.stopped > 0 => {
                    println!("{} at {dtype}, forced: {} of {} equal", rule.name, at.equal, at.stopped);
                }
                Ok(_) => {}
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// What became of the candidates of one condition.
#[derive(Default)]
struct Misses {
    total: usize,
    /// Forced, the rule has a right side that type-checks and gives the same numbers on all sizes tried.
    equal: usize,
    /// Forced, the numbers are others.
    wrong: usize,
    /// Forced, the right side is refused: by its operators, or since its type differs.
    refused: usize,
    /// What was wrong first.
    example: String,
}

fn check(name: &str) {
    let subject = SUBJECTS.iter().find(|s| s.rule == name).expect("the rule is listed");
    let rule = registry::find(subject.rule).expect("the rule is registered");
    match subject.numbers {
        Numbers::Field => try_rule::<Field>(subject, rule, 0.0),
        Numbers::Float => try_rule::<f64>(subject, rule, 1e-12),
        Numbers::Rounded => try_rule::<f64>(subject, rule, 1e-6),
    }
}

fn try_rule<S: Number>(subject: &Subject, rule: &'static Rule, tolerance: f64) {
    let wanted: usize = std::env::var("CONVC_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    let (mut fired, mut open_shapes, mut refused_texts, mut seed) = (0, 0, 0, 0);
    let mut held: BTreeSet<&str> = BTreeSet::new();
    let mut misses: BTreeMap<&str, Misses> = BTreeMap::new();
    let least = |misses: &BTreeMap<&str, Misses>| {
        rule.conditions.iter().all(|c| misses.get(c.name).is_some_and(|m| m.total >= wanted / 10))
    };
    while fired < wanted || !least(&misses) {
        seed += 1;
        assert!(
            seed < 100 * wanted as u64,
            "{}: of {seed} random graphs ({refused_texts} of them invalid) only {fired} fired; misses: {:?}",
            rule.name,
            misses.iter().map(|(c, m)| (c, m.total)).collect::<Vec<_>>()
        );
        let text = (subject.generate)(&mut Rng::new(seed));
        let graph = match parse(&text) {
            Ok(g) => g,
            Err(e) => {
                refused_texts += 1;
                assert!(refused_texts < 50 || refused_texts * 10 < seed * 9, "{e}\n{text}");
                continue;
            }
        };
        let (rewrites, missed) = apply(&graph, rule, None);
        let mut known: BTreeSet<String> = BTreeSet::new();
        for r in rewrites {
            held.extend(&r.conditions);
            open_shapes += usize::from(r.same_shape.is_none());
            let rewritten = r.graph.unwrap_or_else(|e| panic!("{}: ill-typed: {e}\n{text}", rule.name));
            known.insert(print(&rewritten));
            match agree::<S>(&graph, &rewritten, seed, tolerance) {
                Ok(tried) => fired += usize::from(tried > 0),
                Err(e) => panic!("{} (seed {seed}): {e}\n{text}becomes\n{}", rule.name, print(&rewritten)),
            }
        }
        for miss in missed {
            let m = misses.entry(miss.condition).or_default();
            m.total += 1;
            for r in apply(&graph, rule, Some(miss.condition)).0 {
                match r.graph {
                    Err(_) => m.refused += 1,
                    // It fires here without being forced.
                    Ok(rewritten) if known.contains(&print(&rewritten)) => {}
                    Ok(rewritten) => match agree::<S>(&graph, &rewritten, seed, tolerance) {
                        Ok(tried) => m.equal += usize::from(tried > 0),
                        Err(e) => {
                            m.wrong += 1;
                            if m.example.is_empty() {
                                m.example = format!("{}: {e}\n{text}", miss.reason);
                            }
                        }
                    },
                }
            }
        }
    }
    println!(
        "{}: {fired} cases fired of {seed} graphs, {open_shapes} of them with shapes not known to be equal",
        rule.name
    );
    for (condition, m) in &misses {
        let Misses { total, equal, wrong, refused, example } = m;
        println!("  {condition}: {total} misses; forced: {wrong} wrong, {refused} refused, {equal} equal all the same");
        println!("    {}", example.replace('\n', "\n    "));
    }
    for c in rule.conditions {
        assert!(held.contains(c.name), "{}: {} never holds", rule.name, c.name);
        let m = &misses[c.name];
        // In a region a right side of another type is dropped; on the graph itself it would be an error.
        let refused = rule.phase != Phase::Explore && m.refused > 0;
        assert!(
            m.wrong > 0 || refused || subject.rounding.contains(&c.name),
            "{}: forcing {} never gives wrong numbers ({} refused, {} equal): it is unneeded, or the graphs are too tame",
            rule.name,
            c.name,
            m.refused,
            m.equal
        );
    }
}
