"""Writes what ONNX Runtime makes of the models that `tests/regressions.rs` tries, with its graph optimisations off:

    python tests/models/expected.py

`expected/NAME.npz` holds, for each case k, the inputs as `k.in.INPUT` and the outputs as `k.out.OUTPUT`; `k.in_doubt.OUTPUT` names
elements that depend on how sums are rounded (see docs/floating-point.md). A case at which ONNX Runtime fails is left out.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

HERE = Path(__file__).parent
FOLDERS = [HERE, HERE.parent.parent / "compiler/tests/models"]

# Sizes of open axes, by model; optimisation chooses others by itself.
SIZES = {
    "rows_that_turn_at_200": [(2, 3), (3, 1), (99, 1), (100, 1), (101, 2), (130, 1)],
    "channel_of_whole_hundreds": [(1,), (99,), (100,)],
    "pool_smaller_than_its_window": [(1, 5, 2), (2, 6, 3), (1, 9, 12), (1, 7, 5), (0, 9, 12), (1, 2, 2)],
    "reshape_to_nothing": [(0,)],
}
# Models of inputs without a shape, which convc does not run.
SKIPPED = {"declared_output_is_another_a", "declared_output_is_another_b"}
TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int32)": np.int32, "tensor(int64)": np.int64}


def both_signs(path, x):
    """Which outputs of `conv1x1(x * s, k)` are sums of products that overflow with both signs."""
    k, s = (onnx.numpy_helper.to_array(c) for c in onnx.load(path).graph.initializer)
    with np.errstate(over="ignore"):
        products = np.einsum("nihw,oi->noihw", x * s, k[:, :, 0, 0], optimize=False)
    return np.isposinf(products).any(2) & np.isneginf(products).any(2)


def main():
    for path in sorted(p for folder in FOLDERS for p in folder.glob("*.onnx") if p.stem not in SKIPPED):
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        try:
            session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as e:
            print(f"{path.name}: ONNX Runtime refuses it: {str(e)[:120]}")
            continue
        given = {i.name for i in onnx.load(path).graph.initializer}
        inputs = [i for i in session.get_inputs() if i.name not in given]
        symbols = sorted({d for i in inputs for d in i.shape if isinstance(d, str)})
        arrays = {}
        for k, sizes in enumerate(SIZES.get(path.stem, [()])):
            random = np.random.default_rng(k)
            bound = dict(zip(symbols, sizes))
            feeds = {}
            for i in inputs:
                shape = [bound.get(d, d) for d in i.shape]
                kind = TYPES[i.type]
                # Multiples of a quarter keep the files small.
                drawn = np.round(4 * random.standard_normal(shape)) / 4 if np.issubdtype(kind, np.floating) else random.integers(-9, 9, shape)
                feeds[i.name] = np.asarray(drawn).astype(kind)
            if path.stem == "channel_left_out":
                feeds["x"][0, -1] = np.inf
            try:
                outputs = session.run(None, feeds)
            except Exception as e:
                print(f"{path.name} at {sizes}: ONNX Runtime fails: {str(e)[-120:]}")
                continue
            arrays |= {f"{k}.in.{name}": value for name, value in feeds.items()}
            if path.stem == "products_beyond_f32":
                arrays[f"{k}.in_doubt.y"] = both_signs(path, feeds["x"])
            arrays |= {f"{k}.out.{o.name}": value for o, value in zip(session.get_outputs(), outputs)}
        print(path.name, sum(a.nbytes for a in arrays.values()), "bytes")
        np.savez_compressed(HERE / "expected" / path.stem, **arrays)


if __name__ == "__main__":
    main()
