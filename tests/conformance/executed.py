"""Write down at which element types ONNX Runtime's CPU provider executes each operator that convc reads.

usage: python executed.py [--check]

An operator is tried at every type that its schema allows for its first output: a node case of the package `onnx`, its tensors
turned to that type, is given to an inference session without optimisations, which refuses what it has no kernel for. From which
opset on a type has a kernel is read from the provider's table of kernels. The constants `EXECUTED` in compiler/src/ops are
rewritten; with --check they are only compared, and the exit code is 1 if one differs.
"""
from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, defs
from onnx.backend.test.case import node
from onnxruntime.capi import onnxruntime_pybind11_state as state

OPS = Path(__file__).resolve().parents[2] / "compiler/src/ops"
RUNTIME = OPS.parents[2] / "runtime/src/ops"
TYPES = {
    "F32": "float", "F64": "double", "F16": "float16", "BF16": "bfloat16", "I8": "int8", "I16": "int16", "I32": "int32",
    "I64": "int64", "U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64", "Bool": "bool", "Str": "string",
}
NEWEST = 24  # the newest opset whose operators the pinned ONNX Runtime knows


def schema_types(name: str) -> tuple[str, set[str]]:
    """The type variable of the first output, and what it may be; the variable is empty for an output of one type."""
    schema = defs.get_schema(name, max_inclusive_version=NEWEST)
    output = schema.outputs[0]
    text = output.type_str
    for constraint in schema.type_constraints:
        if constraint.type_param_str == text:
            return text, set(constraint.allowed_type_strs)
    return "", {text}


def cases() -> dict[str, list[onnx.ModelProto]]:
    """Models of a single node by its operator, the smallest first."""
    np.random.seed(0)
    found: dict[str, list[onnx.ModelProto]] = {}
    with np.errstate(all="ignore"):
        for case in node.collect_testcases(None):
            graph = case.model.graph
            if len(graph.node) == 1 and not graph.node[0].domain:
                found.setdefault(graph.node[0].op_type, []).append(case.model)
    for models in found.values():
        models.sort(key=lambda m: m.ByteSize())
    return found


def turned(model: onnx.ModelProto, schema: defs.OpSchema, variable: str, to: int, alike: bool) -> onnx.ModelProto | None:
    """The model with every tensor of the type variable in another type."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    model.ir_version = min(model.ir_version, 10)
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", NEWEST))
    graph = model.graph
    one = graph.node[0]
    of = lambda formal, i: formal[min(i, len(formal) - 1)].type_str if formal else ""
    names = {n for i, n in enumerate(one.input) if n and of(schema.inputs, i) == variable}
    names |= {n for i, n in enumerate(one.output) if n and of(schema.outputs, i) == variable}
    if alike:  # tensors of other variables that have the same type change with it, as parameters of a normalisation do
        types = {v.name: v.type.tensor_type.elem_type for v in [*graph.input, *graph.output]}
        names |= {n for n, t in types.items() if t in {types.get(m) for m in names} and t != TensorProto.INT64}
    for value in [*graph.input, *graph.output]:
        if value.name in names:
            if not value.type.HasField("tensor_type"):
                return None
            value.type.tensor_type.elem_type = to
    for attribute in one.attribute:
        if one.op_type == "Cast" and attribute.name == "to":
            attribute.i = to
        if one.op_type == "ConstantOfShape" and attribute.name == "value":
            attribute.t.CopyFrom(onnx.helper.make_tensor("value", to, [1], [0]))
        if one.op_type in ("EyeLike",) and attribute.name == "dtype":
            attribute.i = to
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception:
        return None
    return model


def runs(model: onnx.ModelProto) -> bool:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:
        return False
    return True


def first_opsets(name: str, variable: str) -> dict[str, int]:
    """From which opset on the provider has a kernel for each type of the variable."""
    since: dict[str, int] = {}
    for kernel in state.get_all_opkernel_def():
        if kernel.op_name == name and not kernel.domain and kernel.provider == "CPUExecutionProvider":
            for text in kernel.type_constraints.get(variable, [f"tensor({t})" for t in TYPES.values()]):
                key = text.removeprefix("tensor(").removesuffix(")")
                since[key] = min(since.get(key, 1 << 30), kernel.version_range[0])
    return since


def executed(name: str, models: list[onnx.ModelProto]) -> dict[str, int]:
    """The types at which the provider executes an operator, each with the opset from which on it does."""
    try:
        schema = defs.get_schema(name, max_inclusive_version=NEWEST)
    except defs.SchemaError:  # the operator is newer
        return {}
    variable, allowed = schema_types(name)
    if not variable:
        return {t: 1 for t, text in TYPES.items() if f"tensor({text})" in allowed}
    kernels = first_opsets(name, variable)
    history = [s for s in defs.get_all_schemas_with_history() if s.name == name and not s.domain]
    bodies = [s.since_version for s in history if s.has_function or s.has_context_dependent_function]
    found = {}
    for short, text in TYPES.items():
        if f"tensor({text})" not in allowed:
            continue
        to = TensorProto.DataType.Value({"float": "FLOAT", "double": "DOUBLE"}.get(text, text.upper()))
        tries = (turned(m, schema, variable, to, alike) for m in models for alike in (False, True))
        tries = [m for m in tries if m is not None][:8]
        if any(runs(m) for m in tries):
            # What runs without a kernel of its own is cast around or written out from its definition.
            found[short] = kernels.get(text, 1 if text in ("float16", "bfloat16") else min(bodies, default=schema.since_version))
    if "F32" in found:
        for short in ("F16", "BF16"):
            if short in found and found[short] == 1:
                found[short] = found["F32"]
    return found


def literal(table: dict[str, dict[str, int]]) -> str:
    """The constant's lines: a name, an opset, and the types that come with it."""
    rows = []
    for name, types in table.items():
        by_opset: dict[int, list[str]] = {}
        for short, since in types.items():
            by_opset.setdefault(since, []).append(short)
        for since, names in sorted(by_opset.items()):
            rows.append(f'        ("{name}", {since}, types![{", ".join(names)}]),')
    return "\n".join(rows)


CONSTANT = re.compile(r"    const EXECUTED: &'static \[super::Executed\] = &\[(.*?)\];\n", re.S)
ROW = re.compile(r'\(\s*"(\w+)",\s*(\d+),\s*types!\[([^\]]*)\],?\s*\)', re.S)


def written(text: str) -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = {}
    for name, since, types in ROW.findall(text):
        for t in re.findall(r"\w+", types):
            table.setdefault(name, {})[t] = int(since)
    return table


def names_read(block: str) -> list[str]:
    """The ONNX names of an `impl OnnxOperator`: a list, or the texts of an enumeration of the runtime."""
    reads = re.search(r"const READS: &'static \[&'static str\] =([^;]*);", block)
    if reads is None:
        return []
    kind = re.search(r"(\w+)::TEXTS", reads.group(1))
    if kind is None:
        return re.findall(r'"(\w+)"', reads.group(1))
    for path in RUNTIME.rglob("*.rs"):
        found = re.search(rf"pub enum {kind.group(1)} \{{(.*?)\n    \}}", path.read_text(), re.S)
        if found:
            return re.findall(r'= "(\w+)"', found.group(1))
    return []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    models = cases()
    known: dict[str, dict[str, int]] = {}
    differ = []
    names_of = re.compile(r'impl OnnxOperator for (\w+) \{(.*?)\n\}\n', re.S)
    for path in sorted(OPS.glob("*.rs")):
        text = path.read_text()
        for match in list(names_of.finditer(text)):
            block = match.group(0)
            constant = CONSTANT.search(block)
            if constant is None or 'const DOMAIN' in block:
                continue
            table = {}
            for name in names_read(block):
                if name not in known:
                    known[name] = executed(name, models.get(name, []))
                table[name] = known[name]
            table = {n: t for n, t in table.items() if t}
            if written(constant.group(1)) != table:
                differ.append(f"{path.name}: {match.group(1)}: {written(constant.group(1))} is {table}")
                new = f"    const EXECUTED: &'static [super::Executed] = &[\n{literal(table)}\n    ];\n"
                text = text.replace(block, block.replace(constant.group(0), new))
        if not check:
            path.write_text(text)
    for line in differ if check else []:
        print(line, file=sys.stderr)
    return int(check and bool(differ))


if __name__ == "__main__":
    sys.exit(main())
