"""Arithmetic on sizes, and what reads it: Slice, Reshape, Gather, Expand, Range, Tile, ConstantOfShape, Resize, Pad."""
from __future__ import annotations

import numpy as np
from onnx import numpy_helper

from build import FAR, Builder, TensorProto, Unfit, Value, size

INT64 = TensorProto.INT64


class Number:
    """An integer that the graph computes, [1] or a scalar, with its values at the bindings."""

    def __init__(self, value: Value, at: np.ndarray):
        self.value, self.at = value, at


def dimension(g: Builder, x: Value, axis: int, scalar: bool = False) -> Number:
    s = g.shape_of(x)
    if scalar or g.chance(0.5):
        index = g.ints(axis) if scalar else g.ints([axis])
        return Number(g.emit("Gather", [s, index], [] if scalar else [size(1)], INT64, axis=0), x.shape[axis])
    if g.opset >= 10:
        return Number(g.emit("Slice", [s, g.ints([axis]), g.ints([axis + 1]), g.ints([0])], [size(1)], INT64), x.shape[axis])
    return Number(g.emit("Slice", [s], [size(1)], INT64, axes=[0], starts=[axis], ends=[axis + 1]), x.shape[axis])


def arithmetic(g: Builder, n: Number, steps: int = 2) -> Number:
    """Something computed of a size; its behaviour may turn at a constant."""
    shape = n.value.shape
    number = lambda v: g.ints(v if not shape else [v])
    for _ in range(g.rng.randint(0, steps)):
        k = g.pick(1, 1, 2, 2, 3, 4, 7, 8, 16, 50, 100, g.rng.randint(1, 200))
        kind = g.rng.randrange(9 if g.opset >= 12 else 6)
        at, make = n.at, lambda op, *v: g.emit(op, list(v), shape, INT64)
        if kind == 0:
            n = Number(make("Add", n.value, number(k)), at + k)
        elif kind == 1:
            n = Number(make("Sub", n.value, number(k)), at - k)
        elif kind == 2:
            k = min(k, 4)
            n = Number(make("Mul", number(k), n.value), at * k)
        elif kind == 3:
            n = Number(make("Div", n.value, number(k)), np.trunc(at / k).astype(np.int64))
        elif kind == 4:
            n = Number(make("Sub", number(k), n.value), k - at)
        elif kind == 5 and g.opset >= 10:
            n = Number(make("Mod", n.value, number(k)), at % k)
        elif kind == 6:
            n = Number(make("Min", n.value, number(k)), np.minimum(at, k))
        elif kind == 7:
            n = Number(make("Max", number(k), n.value), np.maximum(at, k))
        elif kind == 8:
            less = g.emit("Less", [n.value, number(k)], shape, TensorProto.BOOL)
            m = g.rng.randint(0, 3)
            n = Number(g.emit("Where", [less, n.value, number(m)], shape, INT64), np.where(at < k, at, m))
    return n


def sized_slice(g: Builder, x: Value) -> Value:
    """A slice whose bound is computed of a size."""
    axis = g.pick(*range(x.rank))
    n = arithmetic(g, dimension(g, x, g.pick(axis, axis, g.rng.randrange(x.rank))))
    if n.value.rank == 0:
        raise Unfit("scalar")
    at_start = g.chance(0.4)
    fixed = g.pick(0, 1, -1, FAR) if not at_start else g.pick(FAR, -1, 5)
    start, end = (n.at, np.full_like(n.at, fixed)) if at_start else (np.full_like(n.at, fixed if fixed != FAR else 0), n.at)
    if fixed == FAR and not at_start:
        fixed = 0
    step = g.pick(1, 1, 1, 2)
    length = size(*(len(range(*slice(int(a), int(b), step).indices(int(s)))) for a, b, s in zip(start, end, x.shape[axis])))
    if (length < 1).any() and not g.chance(0.1):
        raise Unfit("empty")
    other = g.ints([fixed])
    return g.slice_at(x, axis, n.value if at_start else other, other if at_start else n.value, length, step)


def computed_shape(g: Builder, x: Value, sizes: list) -> tuple[Value, list[np.ndarray]]:
    """A shape of numbers and of sizes of `x` (as strings, their axis)."""
    parts, shape = [], []
    for s in sizes:
        if isinstance(s, str):
            n = dimension(g, x, int(s))
            parts.append(n.value)
            shape.append(n.at)
        else:
            parts.append(g.ints([s]))
            shape.append(size(s))
    return g.emit("Concat", parts, [size(len(parts))], INT64, axis=0), shape


def computed_reshape(g: Builder, x: Value) -> Value:
    """To [N, C, -1] and back, or to two axes, by sizes that are read from the map."""
    flat = [x.shape[0], x.shape[1], np.prod([*x.shape[2:], size(1)], axis=0)]
    target, _ = computed_shape(g, x, ["0", "1", -1] if g.chance(0.7) else ["0", x.fixed(1), -1])
    y = g.reshape_to(x, target, flat)
    kind = g.rng.random()
    if kind < 0.4:
        y = g.transpose(y, [0, 2, 1])
        if g.chance(0.6):
            c = x.fixed(1)
            y = g.matmul(y, g.weight([c, c], max(c, 1) ** -0.5))
            y = g.either("Add", y, g.weight([c])) if g.chance(0.5) else y
        y = g.transpose(y, [0, 2, 1])
    elif kind < 0.6:
        y = g.unary("Softmax", y, axis=g.pick(2, 1) if g.opset >= 13 else 2)
    if g.chance(0.1):
        return y
    back, shape = computed_shape(g, x, [str(i) for i in range(x.rank)])
    return g.reshape_to(y, back, shape)


def ranged(g: Builder, x: Value) -> Value:
    """Elements by a computed index: a range of a size, cut, turned, taken modulo, gathered."""
    if g.opset < 11:
        raise Unfit("no Range")
    axis = g.rng.randrange(x.rank)
    n = dimension(g, x, axis, scalar=True)
    start, step = g.pick(0, 0, 0, 1), g.pick(1, 1, 1, 2)
    m = arithmetic(g, n, 1) if g.chance(0.35) else n
    at = [np.arange(start, int(v), step) for v in m.at]
    length = size(*(len(a) for a in at))
    index = g.emit("Range", [g.ints(start), m.value, g.ints(step)], [length], INT64)
    for _ in range(g.pick(0, 0, 1, 1, 2)):
        kind, k = g.rng.randrange(6), g.pick(1, 2, 3, 5, 10, 100)
        if kind == 0:
            index, at = g.emit("Sub", [g.emit("Sub", [n.value, g.ints(1)], [], INT64), index], index.shape, INT64), [int(v) - 1 - a for v, a in zip(n.at, at)]
        elif kind == 1:
            index, at = g.emit("Mod", [index, g.ints(k)], index.shape, INT64), [a % k for a in at]
        elif kind == 2:
            index, at = g.emit("Div", [index, g.ints(k)], index.shape, INT64), [a // k for a in at]
        elif kind == 3 and g.opset >= 12:
            index, at = g.emit("Min", [index, g.ints(k)], index.shape, INT64), [np.minimum(a, k) for a in at]
        elif kind == 4:
            at = [a[:k] for a in at]
            index = g.emit("Slice", [index, g.ints([0]), g.ints([k]), g.ints([0])], [size(*(len(a) for a in at))], INT64)
        else:
            index, at = g.emit("Add", [index, g.ints(k)], index.shape, INT64), [a + k for a in at]
    for a, s in zip(at, x.shape[axis]):
        if len(a) < 1 or a.max() >= s or a.min() < -s:
            raise Unfit("index")
    shape = [index.shape[0] if i == axis else s for i, s in enumerate(x.shape)]
    return g.emit("Gather", [x, index], shape, axis=axis)


def grown(g: Builder, x: Value) -> Value:
    """Expand, Tile or a fill of the map's own shape."""
    kind = g.rng.random()
    if kind < 0.4:
        value = g.number(g.pick(0, 1, 2), x, [1])
        filled = g.emit("ConstantOfShape", [g.shape_of(x)], x.shape, x.dtype, value=numpy_helper.from_array(value.data))
        return g.either(g.pick("Add", "Mul", "Sub"), x, filled)
    if kind < 0.7:
        c = x.fixed(1)
        small = g.weight([1, c, *[1] * (x.rank - 2)])
        return g.either("Add", x, g.emit("Expand", [small, g.shape_of(x)], x.shape))
    axis = g.rng.randrange(1, x.rank)
    repeats = [2 if i == axis else 1 for i in range(x.rank)]
    return g.emit("Tile", [x, g.ints(repeats)], [s * r for s, r in zip(x.shape, repeats)])


def guarded(g: Builder, x: Value) -> Value:
    """A pad whose amount is computed so that the size becomes a multiple, as detectors do."""
    if g.opset < 11:
        raise Unfit("no computed pads")
    axis, k = g.rng.randrange(2, x.rank), g.pick(2, 4, 8)
    n = dimension(g, x, axis)
    rest = g.emit("Mod", [g.emit("Sub", [g.ints([0]), n.value], [size(1)], INT64), g.ints([k])], [size(1)], INT64)
    amount = (-n.at) % k
    zeros = lambda m: g.ints([0] * m)
    pads = g.emit("Concat", [zeros(x.rank + axis), rest] + ([zeros(x.rank - axis - 1)] if axis + 1 < x.rank else []), [size(2 * x.rank)], INT64, axis=0)
    shape = [s + amount if i == axis else s for i, s in enumerate(x.shape)]
    return g.emit("Pad", [x, pads], shape)
