"""Write the ONNX node conformance cases of the installed `onnx` package as plain files.

usage: python generate.py OUT

OUT/cases.txt               the case names, sorted, one a line
OUT/<case>/model.onnx       a model whose graph is the case
OUT/<case>/input_K.pb       the K-th graph input: a serialised TensorProto, SequenceProto or OptionalProto
OUT/<case>/output_K.pb      the K-th graph output that the operator's reference gives
OUT/<case>/input_K.kind     "sequence" or "optional", beside a .pb that is not a TensorProto (likewise output_K.kind)
OUT/<case>/tolerance.json   {"atol": .., "rtol": ..}: an output passes if its type and shape are equal and every element has
                            |got - want| <= atol + rtol * |want|, NaN only where NaN is wanted; onnx's own runner takes
                            max(rtol, 2**-6) for bfloat16, and compares strings for equality

Every case has exactly one data set. The files depend on the versions of onnx and numpy alone: the generator that some
cases draw their inputs from is seeded. Files already in OUT are overwritten.
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case import node
from onnx.backend.test.case.test_case import TestCase

SEED = 0


def collect() -> list[TestCase]:
    """All node cases, by name. The cases are built while their modules are imported, so this works once per process."""
    np.random.seed(SEED)  # the cases draw from numpy's global generator
    with np.errstate(all="ignore"):  # infinities and NaN are part of some cases
        return sorted(node.collect_testcases(None), key=lambda case: case.name)


def encode(value: Any, info: onnx.ValueInfoProto) -> tuple[str, bytes]:
    """The kind of a graph input or output, and its value as protobuf bytes."""
    kind = info.type.WhichOneof("value").removesuffix("_type")
    match kind:
        case "tensor" if isinstance(value, onnx.TensorProto):
            proto = onnx.TensorProto()
            proto.CopyFrom(value)
            proto.name = info.name
        case "tensor":
            proto = numpy_helper.from_array(np.asarray(value), info.name)
        case "sequence":
            proto = numpy_helper.from_list(value, info.name)
        case "optional":
            proto = numpy_helper.from_optional(value, info.name)
        case _:
            raise ValueError(f"{info.name}: no file form for a value of kind {kind}")
    return kind, proto.SerializeToString(deterministic=True)


def write_case(case: TestCase, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(case.model.SerializeToString(deterministic=True))
    (folder / "tolerance.json").write_text(json.dumps({"atol": case.atol, "rtol": case.rtol}) + "\n")
    [(inputs, outputs)] = case.data_sets
    graph = case.model.graph
    for role, values, infos in (("input", inputs, graph.input), ("output", outputs, graph.output)):
        for k, (value, info) in enumerate(zip(values, infos, strict=True)):
            kind, data = encode(value, info)
            (folder / f"{role}_{k}.pb").write_bytes(data)
            if kind != "tensor":
                (folder / f"{role}_{k}.kind").write_text(kind + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; made if missing")
    out = parser.parse_args().out
    cases = collect()
    for case in cases:
        write_case(case, out / case.name)
    (out / "cases.txt").write_text("".join(f"{case.name}\n" for case in cases))
    print(f"{out}: {len(cases)} cases from onnx {onnx.__version__}")


if __name__ == "__main__":
    main()
