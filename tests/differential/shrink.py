"""Delta debugging: the smallest model that still fails in the same way, by removing whatever can go.

Steps, until none helps: fewer outputs; a node's result replaced by one of its operands, by a new input, or by the constant that it
is; constants made plain; open axes fixed; sizes of inputs made smaller. A step is kept if ONNX Runtime still runs the model
and `fails` says that it still fails.
"""
from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper


def copy(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(model.SerializeToString())


def prune(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without nodes and constants that no output needs, and without inputs that nothing reads."""
    graph = model.graph
    needed, kept = {o.name for o in graph.output}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed.update(reads(node))
    del graph.node[:]
    graph.node.extend(kept[::-1])
    for field in (graph.initializer, graph.input):
        kept = [t for t in field if t.name in needed]
        del field[:]
        field.extend(kept)
    del graph.value_info[:]
    return model


def reads(node: onnx.NodeProto) -> set[str]:
    names = set(node.input)
    for a in node.attribute:
        if a.type == onnx.AttributeProto.GRAPH:
            for n in a.g.node:
                names |= reads(n)
            names |= {o.name for o in a.g.output}
    return names


def observed(model: onnx.ModelProto) -> dict[str, tuple[int, list]]:
    """The type and the inferred sizes of every value."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception:
        inferred = model.graph
    found = {}
    for port in [*inferred.input, *inferred.value_info, *inferred.output]:
        t = port.type.tensor_type
        if t.HasField("shape"):
            found[port.name] = (t.elem_type, [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in t.shape.dim])
    for t in inferred.initializer:
        found[t.name] = (t.data_type, list(t.dims))
    return found


def redirect(model: onnx.ModelProto, old: str, new: str) -> None:
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name == old:
                node.input[i] = new


def fewer_outputs(model: onnx.ModelProto) -> Iterator[onnx.ModelProto]:
    if len(model.graph.output) > 1:
        for o in model.graph.output:
            m = copy(model)
            del m.graph.output[:]
            m.graph.output.append(o)
            yield m


def other_outputs(model: onnx.ModelProto) -> Iterator[onnx.ModelProto]:
    """An inner value in the place of the output that it leads to."""
    inner = [x for n in model.graph.node for x in n.output if x]
    for name in reversed(inner):
        if len(model.graph.output) == 1 and name != model.graph.output[0].name:
            types = observed(model)
            if name in types:
                m = copy(model)
                del m.graph.output[:]
                m.graph.output.append(helper.make_tensor_value_info(name, types[name][0], None))
                yield m


def without_nodes(model: onnx.ModelProto) -> Iterator[onnx.ModelProto]:
    types = observed(model)
    outputs = {o.name for o in model.graph.output}
    for index in reversed(range(len(model.graph.node))):
        node = model.graph.node[index]
        for result in node.output:
            if not result:
                continue
            if result not in outputs:
                for operand in dict.fromkeys(node.input):
                    if operand and types.get(operand, (0, 1))[0] == types.get(result, (0, 2))[0]:
                        m = copy(model)
                        redirect(m, result, operand)
                        yield m
                if result in types and node.op_type != "Constant":
                    m = copy(model)
                    dtype, shape = types[result]
                    m.graph.input.append(helper.make_tensor_value_info(f"in_{result}", dtype, shape))
                    redirect(m, result, f"in_{result}")
                    yield m
            elif len(node.output) == 1:
                for operand in dict.fromkeys(node.input):
                    if any(operand in n.output for n in model.graph.node) and operand not in outputs and operand in types:
                        m = copy(model)
                        for o in m.graph.output:
                            if o.name == result:
                                o.CopyFrom(helper.make_tensor_value_info(operand, types[operand][0], None))
                        yield m


def without_operands(model: onnx.ModelProto) -> Iterator[onnx.ModelProto]:
    """Optional operands left out, attributes too."""
    for i, node in enumerate(model.graph.node):
        if len(node.input) > 2 and node.op_type in ("Conv", "ConvTranspose", "Gemm", "Pad", "Clip"):
            m = copy(model)
            del m.graph.node[i].input[-1]
            yield m
        for k, a in enumerate(node.attribute):
            if a.type in (onnx.AttributeProto.INT, onnx.AttributeProto.INTS, onnx.AttributeProto.STRING, onnx.AttributeProto.FLOAT):
                m = copy(model)
                del m.graph.node[i].attribute[k]
                yield m
                if a.type == onnx.AttributeProto.INTS and a.name in ("pads", "dilations", "strides"):
                    for j, n in enumerate(a.ints):
                        if n != (0 if a.name == "pads" else 1):
                            m = copy(model)
                            m.graph.node[i].attribute[k].ints[j] = 0 if a.name == "pads" else 1
                            yield m


def plainer_constants(model: onnx.ModelProto) -> Iterator[onnx.ModelProto]:
    for i, t in enumerate(model.graph.initializer):
        array = numpy_helper.to_array(t)
        if array.dtype.kind != "f" or not array.size:
            continue
        for plain in (np.zeros_like(array), np.ones_like(array), np.round(array)):
            if not np.array_equal(plain, array):
                m = copy(model)
                m.graph.initializer[i].CopyFrom(numpy_helper.from_array(plain, t.name))
                yield m


def smaller_inputs(model: onnx.ModelProto) -> Iterator[onnx.ModelProto]:
    for i, port in enumerate(model.graph.input):
        for axis, d in enumerate(port.type.tensor_type.shape.dim):
            for n in (1, 2, 3, 4, 5) if d.dim_param else range(1, min(d.dim_value, 12)):
                m = copy(model)
                m.graph.input[i].type.tensor_type.shape.dim[axis].Clear()
                m.graph.input[i].type.tensor_type.shape.dim[axis].dim_value = n
                yield m


def thinner_channels(model: onnx.ModelProto) -> Iterator[onnx.ModelProto]:
    """An axis of a constant, and every axis of this size in constants and inputs, one or half as long."""
    sizes = sorted({d for t in model.graph.initializer for d in t.dims if d > 1} | {d.dim_value for p in model.graph.input for d in p.type.tensor_type.shape.dim if d.dim_value > 1})
    for n in sizes:
        for less in (1, 2, n // 2, n - 1):
            if not 0 < less < n:
                continue
            m = copy(model)
            for t in m.graph.initializer:
                array = numpy_helper.to_array(t)
                if array.dtype.kind == "f" and n in array.shape:
                    t.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array[tuple(slice(0, less if s == n else s) for s in array.shape)]), t.name))
            for p in m.graph.input:
                for d in p.type.tensor_type.shape.dim:
                    if d.dim_value == n:
                        d.dim_value = less
            for o in m.graph.output:
                o.type.tensor_type.ClearField("shape")
            for node in m.graph.node:
                for a in node.attribute:
                    if a.name == "group" and a.i == n:
                        a.i = less
            yield m


STEPS = (fewer_outputs, other_outputs, without_nodes, without_operands, smaller_inputs, thinner_channels, plainer_constants)


def shrink(model: onnx.ModelProto, fails: Callable[[onnx.ModelProto], bool], seconds: float = 120) -> onnx.ModelProto:
    """The smallest model found within the time."""
    end = time.monotonic() + seconds
    plain = copy(model)
    for o in plain.graph.output:
        o.type.tensor_type.ClearField("shape")
    model = plain if fails(plain) else model
    changed = True
    while changed and time.monotonic() < end:
        changed = False
        for step in STEPS:
            again = True
            while again and time.monotonic() < end:
                again = False
                for candidate in step(model):
                    if time.monotonic() > end:
                        break
                    candidate = prune(candidate)
                    if candidate.graph.node and candidate.SerializeToString() != model.SerializeToString() and fails(candidate):
                        model, changed, again = candidate, True, True
                        break
    return model
