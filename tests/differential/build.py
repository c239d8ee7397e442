"""A model under construction: values whose sizes are known at two bindings of the symbols, and operators as each opset writes them.

A size is an array with one number for each binding, so that the arithmetic of shapes is ordinary arithmetic and a value of
which both numbers are valid is valid, as a rule, at other bindings too. Where an operator cannot be written (a kernel larger than
the map, an axis that does not exist) `Unfit` is raised, and whoever asked tries something else.
"""
from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

BINDINGS = 2
LARGEST = 60_000  # elements of one value
NUMPY = {
    TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64, TensorProto.FLOAT16: np.float16, TensorProto.BOOL: np.bool_,
    TensorProto.INT8: np.int8, TensorProto.UINT8: np.uint8, TensorProto.INT32: np.int32, TensorProto.INT64: np.int64,
}
ONNX = {np.dtype(v): k for k, v in NUMPY.items()}
FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
FAR = 2**63 - 1


class Unfit(Exception):
    """What was asked for cannot be written here."""


def size(*numbers: int) -> np.ndarray:
    return np.array(numbers if len(numbers) > 1 else numbers * BINDINGS, dtype=np.int64)


def is_open(s: np.ndarray) -> bool:
    return bool((s != s[0]).any())


def same(a, b) -> bool:
    return len(a) == len(b) and all((p == q).all() for p, q in zip(a, b))


@dataclass(frozen=True, eq=False)
class Value:
    name: str
    dtype: int
    shape: tuple[np.ndarray, ...]
    data: np.ndarray | None = None  # of a constant

    @property
    def rank(self) -> int:
        return len(self.shape)

    def fixed(self, axis: int) -> int:
        """The size of an axis that no symbol changes."""
        if is_open(self.shape[axis]):
            raise Unfit("open axis")
        return int(self.shape[axis][0])


class Builder:
    def __init__(self, rng: random.Random, opset: int, dtype: int):
        self.rng, self.opset, self.dtype = rng, opset, dtype
        self.numpy = np.random.default_rng(rng.getrandbits(32))
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: list[tuple[Value, list[str | None]]] = []
        self.made: list[Value] = []  # results of nodes, in their order
        self.weights: list[Value] = []
        self.names = 0
        # how often a constant is a Constant node, and how often a weight is one that is there already
        self.as_node, self.shared = rng.choice((0.0, 0.0, 0.3, 1.0)), rng.choice((0.0, 0.05, 0.3))

    # names, constants, nodes

    def fresh(self, stem: str) -> str:
        self.names += 1
        return f"{stem}{self.names}"

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def pick(self, *options):
        return self.rng.choice(options)

    def input(self, stem: str, dtype: int, shape, symbols) -> Value:
        value = Value(self.fresh(stem), dtype, tuple(shape))
        self.inputs.append((value, list(symbols)))
        return value

    def const(self, array: np.ndarray) -> Value:
        array = np.asarray(array)
        value = Value(self.fresh("c"), ONNX[array.dtype], tuple(size(n) for n in array.shape), array)
        tensor = numpy_helper.from_array(array, value.name)
        if self.chance(self.as_node):
            self.nodes.append(helper.make_node("Constant", [], [value.name], value=tensor))
        else:
            self.initializers.append(tensor)
        return value

    def number(self, v: float, like: Value, shape=()) -> Value:
        """A constant of the type of another value; what that type cannot hold wraps around."""
        return self.const(np.full(shape, v).astype(NUMPY[like.dtype]))

    def ints(self, numbers, dtype=np.int64) -> Value:
        return self.const(np.array(numbers, dtype=dtype))

    def weight(self, shape, scale: float = 1.0, shift: float = 0.0, dtype: int | None = None) -> Value:
        """Random numbers; sometimes those of another weight of this shape, as the same constant."""
        dtype = dtype or self.dtype
        shape = tuple(int(n) for n in shape)
        alike = [w for w in self.weights if w.dtype == dtype and w.data.shape == shape]
        if alike and self.chance(self.shared):
            return self.rng.choice(alike)
        if dtype in FLOATS:
            array = self.numpy.standard_normal(shape) * scale + shift
            if self.chance(0.03):
                array = np.zeros(shape) if self.chance(0.5) else np.full(shape, shift or 1.0)
        else:
            array = self.numpy.integers(0 if dtype in (TensorProto.BOOL, TensorProto.UINT8) else -3, 2 if dtype == TensorProto.BOOL else 4, shape)
        made = self.const(array.astype(NUMPY[dtype]))
        self.weights.append(made)
        return made

    def emit(self, op: str, operands, shape, dtype: int | None = None, domain: str = "", **attributes) -> Value:
        return self.emit_many(op, operands, [shape], dtype, domain, **attributes)[0]

    def emit_many(self, op: str, operands, shapes, dtype: int | None = None, domain: str = "", **attributes) -> list[Value]:
        given = [o for o in operands if o is not None]
        dtype = dtype or given[0].dtype
        shapes = [tuple(s) for s in shapes]
        for s in shapes:
            if any((n < 0).any() for n in s) or (np.prod([*s, size(1)], axis=0) > LARGEST).any():
                raise Unfit("size")
        values = [Value(self.fresh(op.lower()[:6]), dtype, s) for s in shapes]
        names = ["" if o is None else o.name for o in operands]
        while names and not names[-1]:
            names.pop()
        attributes = {k: v for k, v in attributes.items() if v is not None}
        self.nodes.append(helper.make_node(op, names, [v.name for v in values], domain=domain, **attributes))
        self.made += values
        return values

    # operators whose spelling depends on the opset

    def unary(self, op: str, x: Value, **attributes) -> Value:
        return self.emit(op, [x], x.shape, **attributes)

    def binary(self, op: str, a: Value, b: Value, dtype: int | None = None) -> Value:
        rank = max(a.rank, b.rank)
        p, q = ((size(1),) * (rank - v.rank) + v.shape for v in (a, b))
        shape = []
        for m, n in zip(p, q):
            if not ((m == n) | (m == 1) | (n == 1)).all():
                raise Unfit("broadcast")
            shape.append(np.where(m == 1, n, m))
        return self.emit(op, [a, b], shape, dtype)

    def either(self, op: str, a: Value, b: Value) -> Value:
        """The operands in either order."""
        return self.binary(op, *((a, b) if self.chance(0.5) else (b, a)))

    def reduce(self, op: str, x: Value, axes, keep: bool) -> Value:
        axes = sorted(a % x.rank for a in axes)
        shape = [size(1) if i in axes else s for i, s in enumerate(x.shape) if keep or i not in axes]
        written = [a - x.rank if self.chance(0.3) and self.opset >= 11 else a for a in axes]
        if self.opset >= (13 if op == "ReduceSum" else 18):
            return self.emit(op, [x, self.ints(written)], shape, keepdims=int(keep))
        return self.emit(op, [x], shape, axes=written, keepdims=int(keep))

    def slice(self, x: Value, axes, starts, ends, steps=None) -> Value:
        """Bounds as ONNX takes them, in numbers."""
        shape = list(x.shape)
        for axis, start, end, step in zip(axes, starts, ends, steps or [1] * len(axes)):
            n = x.shape[axis]
            shape[axis] = size(*(len(range(*slice(start, None if step < 0 and end < -(2**40) else end, step).indices(int(k)))) for k in n))
        if self.opset < 10:
            if steps and any(s != 1 for s in steps):
                raise Unfit("no steps")
            return self.emit("Slice", [x], shape, axes=list(axes), starts=list(starts), ends=list(ends))
        kind = self.pick(np.int64, np.int64, np.int32)
        bound = (lambda n: max(-(2**31), min(2**31 - 1, n))) if kind == np.int32 else (lambda n: n)
        operands = [x] + [self.ints([bound(n) for n in ns], kind) for ns in (starts, ends, axes)]
        return self.emit("Slice", operands + ([self.ints(steps, kind)] if steps else []), shape)

    def slice_at(self, x: Value, axis: int, start: Value, end: Value, length, step: int = 1) -> Value:
        """One axis, from computed bounds; the length at the bindings is the caller's business."""
        if self.opset < 10:
            raise Unfit("no computed bounds")
        shape = [length if i == axis % x.rank else s for i, s in enumerate(x.shape)]
        return self.emit("Slice", [x, start, end, self.ints([axis])] + ([self.ints([step])] if step != 1 else []), shape)

    def split(self, x: Value, axis: int, parts) -> list[Value]:
        shapes = [[size(p) if i == axis else s for i, s in enumerate(x.shape)] for p in parts]
        if self.opset < 13:
            return self.emit_many("Split", [x], shapes, axis=axis, split=list(parts))
        return self.emit_many("Split", [x, self.ints(parts)], shapes, axis=axis)

    def concat(self, values, axis: int) -> Value:
        first = values[0]
        for v in values[1:]:
            if v.rank != first.rank or any((a != b).any() for i, (a, b) in enumerate(zip(v.shape, first.shape)) if i != axis % first.rank):
                raise Unfit("shapes")
        total = sum(v.shape[axis] for v in values)
        return self.emit("Concat", list(values), [total if i == axis % first.rank else s for i, s in enumerate(first.shape)], axis=axis)

    def reshape(self, x: Value, sizes) -> Value:
        """`sizes` holds numbers (0 and -1 as ONNX reads them)."""
        shape = [x.shape[i] if n == 0 else size(n) for i, n in enumerate(sizes)]
        if -1 in sizes:
            hole = list(sizes).index(-1)
            rest = np.prod([s for i, s in enumerate(shape) if i != hole] + [size(1)], axis=0)
            total = np.prod([*x.shape, size(1)], axis=0)
            if (rest == 0).any() or (total % np.maximum(rest, 1)).any():
                raise Unfit("reshape")
            shape[hole] = total // rest
        if (np.prod([*shape, size(1)], axis=0) != np.prod([*x.shape, size(1)], axis=0)).any():
            raise Unfit("reshape")
        return self.emit("Reshape", [x, self.ints(sizes)], shape)

    def reshape_to(self, x: Value, sizes: Value, shape) -> Value:
        return self.emit("Reshape", [x, sizes], shape)

    def transpose(self, x: Value, perm) -> Value:
        return self.emit("Transpose", [x], [x.shape[p] for p in perm], perm=list(perm))

    def unsqueeze(self, x: Value, axes) -> Value:
        shape = list(x.shape)
        for a in sorted(axes):
            shape.insert(a, size(1))
        return self.emit("Unsqueeze", [x], shape, axes=list(axes)) if self.opset < 13 else self.emit("Unsqueeze", [x, self.ints(axes)], shape)

    def squeeze(self, x: Value, axes) -> Value:
        shape = [s for i, s in enumerate(x.shape) if i not in axes]
        if any((x.shape[a] != 1).any() for a in axes):
            raise Unfit("squeeze")
        return self.emit("Squeeze", [x], shape, axes=list(axes)) if self.opset < 13 else self.emit("Squeeze", [x, self.ints(axes)], shape)

    def pad(self, x: Value, before, after, mode: str = "constant", value: float = 0.0) -> Value:
        shape = [s + b + a for s, b, a in zip(x.shape, before, after)]
        if mode == "reflect" and any((s <= max(b, a)).any() for s, b, a in zip(x.shape, before, after)):
            raise Unfit("reflect")
        if mode != "constant" and any(min(b, a) < 0 for b, a in zip(before, after)):
            raise Unfit("negative pads")
        pads = [*before, *after]
        if self.opset < 11:
            return self.emit("Pad", [x], shape, mode=mode, pads=pads, value=float(value) if value or self.chance(0.5) else None)
        fill = self.number(value, x) if mode == "constant" and (value or self.chance(0.5)) else None
        return self.emit("Pad", [x, self.ints(pads), fill], shape, mode=mode)

    def clip(self, x: Value, low: float | None, high: float | None) -> Value:
        if self.opset < 11:
            return self.unary("Clip", x, min=low, max=high)
        bound = lambda b: None if b is None else self.number(b, x)
        return self.emit("Clip", [x, bound(low), bound(high)], x.shape)

    def cast(self, x: Value, to: int) -> Value:
        return self.emit("Cast", [x], x.shape, to, to=to)

    def matmul(self, a: Value, b: Value) -> Value:
        if a.rank < 2 or b.rank < 2 or (a.shape[-1] != b.shape[-2]).any():
            raise Unfit("matmul")
        rank = max(a.rank, b.rank)
        outer = []
        for m, n in zip(*((size(1),) * (rank - v.rank) + v.shape[:-2] for v in (a, b))):
            if not ((m == n) | (m == 1) | (n == 1)).all():
                raise Unfit("matmul")
            outer.append(np.where(m == 1, n, m))
        return self.emit("MatMul", [a, b], [*outer, a.shape[-2], b.shape[-1]])

    def shape_of(self, x: Value) -> Value:
        return self.emit("Shape", [x], [size(x.rank)], TensorProto.INT64)

    # the model

    def model(self, outputs: list[Value], declared: float) -> onnx.ModelProto:
        """The model, without what no output needs; `declared` is how often an output's static sizes are written down."""
        needed, kept = {v.name for v in outputs}, []
        for node in reversed(self.nodes):
            if needed & set(node.output):
                kept.append(node)
                needed.update(node.input)
                for a in node.attribute:
                    if a.type == onnx.AttributeProto.GRAPH:
                        needed.update(x for n in a.g.node for x in n.input)
                        needed.update(o.name for o in a.g.output)
        inputs = [helper.make_tensor_value_info(v.name, v.dtype, [s or int(n[0]) for n, s in zip(v.shape, symbols)]) for v, symbols in self.inputs]
        ports = []
        for v in outputs:
            port = helper.make_tensor_value_info(v.name, v.dtype, None)
            if self.chance(declared):
                shape = [None if is_open(n) else int(n[0]) for n in v.shape]
                port = helper.make_tensor_value_info(v.name, v.dtype, shape)
            ports.append(port)
        graph = helper.make_graph(kept[::-1], "g", inputs, ports, [t for t in self.initializers if t.name in needed])
        imports = [helper.make_opsetid("", self.opset)]
        # the IR version that came with the opset; ONNX Runtime reads up to 13
        ir = 3 if self.opset == 8 else 4 if self.opset < 10 else 6 if self.opset < 12 else 7 if self.opset < 15 else 8 if self.opset < 19 else 10
        if ir == 3:  # initializers are inputs there
            known = {i.name for i in graph.input}
            graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in graph.initializer if t.name not in known)
        return helper.make_model(graph, opset_imports=imports, ir_version=ir)
