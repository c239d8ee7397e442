"""Look-alikes: real exports of the convolution systems and of re-parameterised blocks with one thing changed.

The exports are those of tests/networks/systems.py: every block of blocks.py by both exporters, with static and symbolic sizes.
Three in a hundred stay as they were exported.
"""
from __future__ import annotations

import argparse
import functools
import random
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto, helper, numpy_helper

import check
from shrink import observed, prune, redirect

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "networks"))

LARGEST = 3 * 2**20  # bytes of an export
TRIES = 25
TWINS = {
    "Add": ("Sub", "Mul"), "Sub": ("Add",), "Mul": ("Add", "Div"), "Div": ("Mul",), "Softmax": ("Sigmoid", "LogSoftmax"), "Sigmoid": ("Tanh", "Softmax"), "Relu": ("Abs", "Sigmoid", "Neg"),
    "ReduceSum": ("ReduceMean", "ReduceMax"), "ReduceMean": ("ReduceSum", "ReduceMax"), "GlobalAveragePool": ("GlobalMaxPool",), "AveragePool": ("MaxPool",),
    "MaxPool": ("AveragePool",), "Clip": ("Relu",), "Sum": ("Max", "Mean"), "Floor": ("Ceil",),
}
FLAGS = ("keepdims", "ceil_mode", "count_include_pad", "transA", "transB", "allowzero", "antialias", "exclude_outside", "noop_with_empty_axes", "training_mode")


class NoPlace(Exception):
    """The model has no place for this change."""


# where files lie


@functools.cache
def sources(fast: bool) -> list[tuple[str, str]]:
    """Names and forms of all exports."""
    try:
        import systems

        return sorted((n, f.label) for n in systems.own_blocks() for f in systems.forms(n) if not fast or any(systems.matches(n, [a]) and systems.matches(f.label, [b]) for a, b, _ in systems.FAST))
    except ImportError:
        raise SystemExit("look-alikes need the packages of tests/networks/requirements.txt")


@functools.cache
def export(name: str, label: str, shared: Path, exports: Path) -> Path | None:
    import systems

    form = next(f for f in systems.forms(name) if f.label == label)
    path = systems.exported(name, form, argparse.Namespace(shared=shared, models=exports))
    return None if isinstance(path, str) or path.stat().st_size > LARGEST else path


def draw(seed: str, args) -> tuple[onnx.ModelProto, str]:
    """A look-alike that ONNX Runtime takes, and what was done."""
    rng = random.Random(seed)
    while True:
        name, label = rng.choice(sources(args.fast))
        path = export(name, label, args.shared, args.exports)
        if path is None:
            continue
        if rng.random() < 0.03:
            return plain(onnx.load(str(path))), f"{name} {label} as exported"
        for _ in range(TRIES):
            model = plain(onnx.load(str(path)))
            try:
                done = [rng.choice(CHANGES)(model, rng) for _ in range(rng.choice((1, 1, 1, 2)))]
                model = prune(model)
                check.session(model.SerializeToString())
            except (NoPlace, IndexError):
                continue
            except Exception:
                continue  # ONNX Runtime refuses it
            return model, f"{name} {label}: {'; '.join(done)}"


def plain(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without what a change would make false: sizes of inner values and of outputs, and notes of the exporter."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    if len(model.functions):
        return model
    del model.graph.value_info[:]
    for o in model.graph.output:
        o.type.tensor_type.ClearField("shape")
    return model


# changes


def tensors(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    return [t for t in check.constants(model.graph) if t.data_type in (1, 6, 7, 10, 11)]


def some(rng: random.Random, options: list):
    if not options:
        raise NoPlace
    return rng.choice(options)


def attribute(model: onnx.ModelProto, rng: random.Random) -> str:
    places = [(n, a) for n in model.graph.node for a in n.attribute if a.type in (AttributeProto.INT, AttributeProto.INTS, AttributeProto.FLOAT, AttributeProto.STRING) and a.name not in ("to", "value_int", "value_ints")]
    node, a = some(rng, places)
    before = helper.printable_attribute(a)
    if a.type == AttributeProto.INT:
        if a.name in FLAGS:
            a.i = 1 - a.i
        else:
            a.i += rng.choice((-1, 1)) if a.name != "group" else rng.choice((-a.i // 2, a.i, 1 - a.i))
    elif a.type == AttributeProto.INTS:
        if not a.ints:
            raise NoPlace
        i = rng.randrange(len(a.ints))
        if a.name in ("pads", "perm", "axes", "kernel_shape") and rng.random() < 0.5 and len(a.ints) > 1:
            j = rng.randrange(len(a.ints))
            a.ints[i], a.ints[j] = a.ints[j], a.ints[i]
            if i == j or a.ints[i] == a.ints[j]:
                raise NoPlace
        elif a.name == "pads" and rng.random() < 0.5:  # moved to the other side
            half = len(a.ints) // 2
            j = (i + half) % len(a.ints)
            a.ints[j] += a.ints[i]
            a.ints[i] = 0
        else:
            a.ints[i] += rng.choice((-1, 1))
    elif a.type == AttributeProto.FLOAT:
        a.f = rng.choice((a.f * 2, a.f + 0.1, -a.f, 1.0))
    else:
        options = {b"nearest": [b"linear"], b"constant": [b"edge", b"reflect"], b"asymmetric": [b"half_pixel", b"align_corners"], b"floor": [b"ceil", b"round_prefer_floor"],
                   b"NOTSET": [b"SAME_UPPER", b"VALID"], b"none": [b"tanh"]}.get(a.s)
        a.s = some(rng, options or [])
    return f"{node.op_type} {before} -> {helper.get_attribute_value(a)}"


def swapped(model: onnx.ModelProto, rng: random.Random) -> str:
    """Two operands of a node, or of two nodes of the same operator."""
    types = observed(model)
    options = [(n, i, m, j) for n in model.graph.node for i in range(len(n.input)) for m in ([n] if rng.random() < 0.6 else [m for m in model.graph.node if m.op_type == n.op_type])
               for j in range(len(m.input)) if (n is not m or i < j) and n.input[i] != m.input[j] and n.input[i] and m.input[j]
               and types.get(n.input[i], (0,))[0] == types.get(m.input[j], (1,))[0]]
    n, i, m, j = some(rng, options)
    n.input[i], m.input[j] = m.input[j], n.input[i]
    return f"{n.op_type} operand {i} <-> {m.op_type} operand {j}"


def shared(model: onnx.ModelProto, rng: random.Random) -> str:
    """One constant in the place of another of its shape."""
    named = [(t.name, t) for t in model.graph.initializer] + [(n.output[0], n.attribute[0].t) for n in model.graph.node if n.op_type == "Constant" and n.attribute[0].name == "value"]
    pairs = [(a, b) for a, p in named for b, q in named if a != b and p.data_type == q.data_type and list(p.dims) == list(q.dims)]
    old, new = some(rng, pairs)
    place = some(rng, [(k, n) for k, n in enumerate(model.graph.node) if old in n.input])[1]
    made = [k for k, n in enumerate(model.graph.node) if new in n.output]
    if made and made[0] > list(model.graph.node).index(place):
        raise NoPlace
    for i, x in enumerate(place.input):
        if x == old:
            place.input[i] = new
    return f"{place.op_type} reads {new} instead of {old}"


def exposed(model: onnx.ModelProto, rng: random.Random) -> str:
    types = observed(model)
    outputs = {o.name for o in model.graph.output}
    name = some(rng, [o for n in model.graph.node for o in n.output if o in types and o not in outputs])
    model.graph.output.append(helper.make_tensor_value_info(name, types[name][0], None))
    return f"{name} is an output too"


def rewired(model: onnx.ModelProto, rng: random.Random) -> str:
    """An operand that is another value of the same shape, made earlier."""
    types = observed(model)
    seen = [i.name for i in model.graph.input]
    options = []
    for node in model.graph.node:
        for k, x in enumerate(node.input):
            options += [(node, k, y) for y in seen if y != x and x in types and types.get(y) == types[x]]
        seen += list(node.output)
    node, k, y = some(rng, options)
    said = f"{node.op_type} operand {k} is {y} instead of {node.input[k]}"
    node.input[k] = y
    return said


def element(model: onnx.ModelProto, rng: random.Random) -> str:
    """One element of a constant."""
    t = some(rng, tensors(model))
    array = numpy_helper.to_array(t).copy()
    if not array.size:
        raise NoPlace
    at = rng.randrange(array.size)
    old = array.flat[at]
    array.flat[at] = old + rng.choice((-1, 1)) if array.dtype.kind == "i" and abs(int(old)) < 2**40 else rng.choice((old * 2, old + 1, 0)) if array.dtype.kind == "f" else 3
    if array.flat[at] == old:
        raise NoPlace
    t.CopyFrom(numpy_helper.from_array(array, t.name))
    return f"element {at} of {t.name or 'a constant'} {list(array.shape)}: {old} -> {array.flat[at]}"


def integer(model: onnx.ModelProto, rng: random.Random) -> str:
    """A bound, an axis, a size: one element of an integer constant."""
    t = some(rng, [t for t in check.constants(model.graph) if t.data_type == 7 and 0 < int(np.prod(t.dims or [1])) <= 16])
    array = numpy_helper.to_array(t).copy()
    at = rng.randrange(array.size)
    old = int(array.flat[at])
    array.flat[at] = rng.choice((old + 1, old - 1, -old, 0, 1, 2)) if abs(old) < 2**40 else rng.choice((3, 7, -1))
    if array.flat[at] == old:
        raise NoPlace
    t.CopyFrom(numpy_helper.from_array(array, t.name))
    return f"integer {at} of {t.name or 'a constant'} {list(array.shape)}: {old} -> {array.flat[at]}"


def softmax(model: onnx.ModelProto, rng: random.Random) -> str:
    node = some(rng, [n for n in model.graph.node if n.op_type == "Softmax"])
    del node.attribute[:]
    axis = rng.choice((0, 1, 2, -1, -2))
    node.attribute.append(helper.make_attribute("axis", axis))
    return f"Softmax over axis {axis}"


def twin(model: onnx.ModelProto, rng: random.Random) -> str:
    node = some(rng, [n for n in model.graph.node if n.op_type in TWINS])
    old, node.op_type = node.op_type, rng.choice(TWINS[node.op_type])
    if node.op_type in ("Sigmoid", "Tanh", "Relu", "MaxPool") or old in ("Clip", "AveragePool"):
        kept = [a for a in node.attribute if a.name not in ("axis", "count_include_pad")]
        del node.attribute[:]
        node.attribute.extend(kept)
    if node.op_type == "Relu":
        del node.input[1:]
    return f"{old} -> {node.op_type}"


def bypassed(model: onnx.ModelProto, rng: random.Random) -> str:
    types, outputs = observed(model), {o.name for o in model.graph.output}
    node, x = some(rng, [(n, x) for n in model.graph.node for x in n.input if len(n.output) == 1 and n.output[0] not in outputs and x in types and types[x] == types.get(n.output[0])])
    redirect(model, node.output[0], x)
    return f"without a {node.op_type}"


def inserted(model: onnx.ModelProto, rng: random.Random) -> str:
    """Something between a value and one of its readers."""
    types = observed(model)
    index, slot = some(rng, [(i, k) for i, n in enumerate(model.graph.node) for k, x in enumerate(n.input) if x and types.get(x, (0, []))[0] == 1 and len(types[x][1]) > 1])
    node = model.graph.node[index]
    x, op = node.input[slot], rng.choice(("Relu", "Neg", "Scale", "Shift", "Identity", "Flip", "Clip", "Channel"))
    shape, name = types[x][1], f"inserted_{index}_{slot}"
    number = lambda a: model.graph.initializer.append(numpy_helper.from_array(np.asarray(a), f"{name}_c")) or f"{name}_c"
    if op == "Scale":
        new = [helper.make_node("Mul", [x, number(np.float32(rng.choice((2.0, -1.0, 0.5))))], [name])]
    elif op == "Shift":
        new = [helper.make_node("Add", [x, number(np.float32(rng.choice((0.5, -1.0))))], [name])]
    elif op == "Channel":
        if not isinstance(shape[1], int):
            raise NoPlace
        ones = [1, shape[1]] + [1] * (len(shape) - 2)
        new = [helper.make_node(rng.choice(("Mul", "Add")), [x, number(np.random.default_rng(rng.getrandbits(32)).standard_normal(ones).astype(np.float32))], [name])]
    elif op == "Flip":
        axis = rng.randrange(len(shape))
        if not isinstance(shape[axis], int):
            raise NoPlace
        new = [helper.make_node("Gather", [x, number(np.arange(shape[axis])[::-1].astype(np.int64))], [name], axis=axis)]
    elif op == "Clip":
        new = [helper.make_node("Clip", [x, "", number(np.float32(0.3))], [name])]
    else:
        new = [helper.make_node(op, [x], [name])]
    node.input[slot] = name
    for k, n in enumerate(new):
        model.graph.node.insert(index + k, n)
    return f"{op} before operand {slot} of {node.op_type}"


def resized(model: onnx.ModelProto, rng: random.Random) -> str:
    """The input's map of another size, or a fixed axis opened."""
    port = some(rng, list(model.graph.input))
    axis = some(rng, [0, 2, 3])
    d = port.type.tensor_type.shape.dim[axis]
    old = d.dim_value or d.dim_param
    if rng.random() < 0.5:
        d.dim_param = "XNHW"[axis] if axis else "N"
    else:
        d.dim_value = rng.choice((1, 2, 3, 8, 9, 15, 16)) if axis else rng.choice((1, 2, 3, 16))
    return f"axis {axis} of {port.name}: {old} -> {d.dim_value or d.dim_param}"


CHANGES = (attribute, attribute, swapped, swapped, shared, exposed, rewired, rewired, element, integer, integer, softmax, twin, twin, bypassed, inserted, inserted, resized)
