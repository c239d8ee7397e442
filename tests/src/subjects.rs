//! Every rule with a generator of graphs that have its left side: one table for all tests on random graphs.

use crate::random::{self, Rng};

/// How results of random graphs of a rule are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// Exactly, in GF(2^61 - 1).
    Field,
    /// In f64, within 1e-12 of the largest element: for rules about order, or whose constants are no dyadic fractions.
    Float,
    /// In f64, within 1e-6 of the largest element: for operators whose own constants are rounded to f32.
    Rounded,
}

/// A rule and how it is tried.
pub struct Subject {
    /// The rule's name.
    pub rule: &'static str,
    /// How results are compared.
    pub numbers: Numbers,
    /// A graph with the rule's left side, or with one that just fails a condition.
    pub generate: fn(&mut Rng) -> String,
    /// Conditions that guard against rounding, or against sizes that only another runtime runs at, not against a wrong formula:
    /// counting them as holding changes nothing here.
    pub rounding: &'static [&'static str],
}

/// Hands every row of the table to the macro `then`: the name of a test, the rule, how results are compared, the
/// generator, and the conditions about rounding.
#[macro_export]
macro_rules! subjects {
    ($then:ident) => {
        $then! {
            identity: "identity" Field random::identities;
            add_zero: "add-zero" Field |r| random::neutral(r, &["Add", "Sub"], 0);
            mul_one: "mul-one" Field |r| random::neutral(r, &["Mul", "Div"], 1);
            fill_as_scalar: "fill-as-scalar" Field random::fills;
            cast_same: "cast-same" Field random::casts;
            relu_relu: "relu-relu" Float |r| random::twice(r, "Relu");
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
            bn_as_conv: "bn-as-conv" Field random::batch_norm, rounding &["scale-is-sane", "map-not-empty"];
            scale_as_conv: "scale-as-conv" Field |r| random::per_channel(r, &["Mul", "Div"]), rounding &["finite-scale", "map-not-empty"];
            shift_as_conv: "shift-as-conv" Field |r| random::per_channel(r, &["Add", "Sub"]), rounding &["map-not-empty"];
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
            view_before_scale: "view-before-scale" Field random::view_of_scaled;
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
            space_to_depth_into_conv: "space-to-depth-into-conv" Field random::conv_of_blocks;
            blocks_as_space_to_depth: "blocks-as-space-to-depth" Field random::space_to_depth;
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
    };
}

macro_rules! table {
    ($($name:ident: $rule:literal $numbers:ident $generate:expr $(, rounding $rounding:expr)?;)*) => {
        /// Every rule with its generator.
        pub const SUBJECTS: &[Subject] = &[$(Subject {
            rule: $rule,
            numbers: Numbers::$numbers,
            generate: $generate,
            rounding: [$($rounding as &[&str],)? &[]][0],
        }),*];
    };
}

subjects!(table);
