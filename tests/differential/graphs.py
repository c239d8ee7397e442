"""Random graphs: a few pieces in a row over one map, some of them side by side, with whatever else a file may hold."""
from __future__ import annotations

import random

import numpy as np
import onnx
from onnx import TensorProto, helper

import families
import indices
import parts
from build import FLOATS, Builder, Unfit, Value, same, size

OPSETS = (8, 9, 10, 11, 11, 12, 13, 13, 14, 15, 16, 17, 17, 18, 18, 19, 20, 21, 22, 23, 24, 25, 26)
PIECES = [
    (parts.conv, 16), (parts.norm, 8), (parts.scaled, 8), (parts.activation, 10), (parts.pool, 7), (parts.padded, 6), (parts.cut, 6), (parts.picked, 4),
    (parts.shuffled, 3), (parts.turned, 3), (parts.resized, 3), (parts.blocks, 5), (parts.flat, 5), (parts.neutral, 4), (parts.transposed, 4),
    (families.branches, 10), (families.siblings, 7), (families.ghost, 3), (families.calibrated, 3), (families.mixture, 9), (families.attention, 4),
    (families.involution, 3), (families.overparameterised, 2), (families.chain, 6),
    (indices.sized_slice, 4), (indices.computed_reshape, 3), (indices.ranged, 4), (indices.grown, 3), (indices.guarded, 1),
]
# Some graphs are of one kind of piece, so that it meets itself.
LINEAR = [
    (parts.conv, 8), (parts.norm, 4), (parts.scaled, 4), (parts.padded, 4), (parts.cut, 6), (parts.picked, 3), (parts.pool, 3), (parts.resized, 1),
    (parts.blocks, 2), (families.branches, 5), (families.siblings, 5), (families.chain, 4), (parts.turned, 1), (parts.transposed, 2),
]
MIXED = [(families.mixture, 10), (parts.scaled, 2), (parts.norm, 2), (parts.conv, 2), (parts.activation, 1), (parts.cut, 1)]
SIZED = [
    (indices.sized_slice, 6), (indices.computed_reshape, 3), (indices.ranged, 8), (indices.grown, 3), (indices.guarded, 2), (parts.conv, 4), (parts.scaled, 2),
    (parts.cut, 3), (parts.turned, 2), (parts.picked, 2), (parts.padded, 2), (parts.activation, 1),
]
# what works on any element type and asks for no weights of a float type
PLAIN = [
    (parts.scaled, 8), (parts.activation, 4), (parts.pool, 6), (parts.padded, 4), (parts.cut, 6), (parts.picked, 4), (parts.shuffled, 3), (parts.turned, 3),
    (parts.neutral, 5), (parts.resized, 1), (parts.blocks, 2), (indices.sized_slice, 4), (indices.computed_reshape, 2), (indices.ranged, 4), (indices.grown, 3),
]


def draw(seed: str) -> onnx.ModelProto:
    """A model; the same one for the same seed."""
    rng = random.Random(seed)
    while True:
        try:
            return attempt(rng)
        except Unfit:
            continue


def attempt(rng: random.Random) -> onnx.ModelProto:
    kinds = [TensorProto.FLOAT] * 17 + [TensorProto.DOUBLE] * 2 + [TensorProto.FLOAT16, TensorProto.INT32, TensorProto.INT64, TensorProto.INT8, TensorProto.UINT8]
    dtype = rng.choice(kinds)
    g = Builder(rng, rng.choice(OPSETS), dtype)
    rank = rng.choice((1, 2, 2, 2, 2, 3))
    theme = rng.choices((PIECES, LINEAR, MIXED, SIZED), (12, 3, 2, 3))[0] if dtype in FLOATS else PLAIN
    x = source(g, rank, open_axes=0.8 if theme is SIZED else 0.3)
    steps, live = rng.choice((1, 2, 3, 3, 4, 5, 6, 8)), [x]
    done = 0
    for _ in range(4 * steps):
        if done == steps:
            break
        try:
            live.append(step(g, live, theme))
            done += 1
        except (Unfit, IndexError):
            continue
    made = [v for v in g.made if v.dtype == dtype]
    if not made or live[-1] is x:
        raise Unfit("nothing")
    outputs = [live[-1]]
    if g.chance(0.25):
        outputs += [v for v in rng.sample(made, min(len(made), rng.choice((1, 1, 2)))) if v is not live[-1]]
    if g.chance(0.03):  # an input or a constant as it is
        outputs.append(g.pick(x, g.number(1, x, [2])))
    outputs = list({v.name: v for v in outputs}.values())
    rng.shuffle(outputs)
    return finish(g, outputs)


def source(g: Builder, rank: int, open_axes: float) -> Value:
    """An input; its batch and map are of fixed or symbolic sizes. Sometimes there are as many samples as channels."""
    symbols = ["N" if g.chance(open_axes) else None, None] + [s if g.chance(open_axes) else None for s in "DHW"[-rank:]]
    largest = 4 if rank == 3 else 12
    shape = [size(g.pick(1, 1, 2, 3)), size(g.pick(1, 2, 3, 4, 4, 6, 8))] + [size(g.rng.randint(3, largest)) for _ in range(rank)]
    if g.chance(0.15):
        shape[1] = shape[0] = size(g.pick(2, 3))
    for axis, s in enumerate(symbols):
        if s:
            shape[axis] = size(int(shape[axis][0]), int(shape[axis][0]) + g.pick(1, 2, 3))
    return g.input("x", g.dtype, shape, symbols)


def step(g: Builder, live: list[Value], pieces) -> Value:
    """One piece after the newest map, or after an older one and then joined to it."""
    piece = g.rng.choices([p for p, _ in pieces], [w for _, w in pieces])[0]
    x = live[-1] if g.chance(0.85) else g.rng.choice(live)
    if g.dtype != TensorProto.FLOAT and g.dtype in FLOATS and g.chance(0.4):
        piece = g.rng.choices([p for p, _ in PLAIN], [w for _, w in PLAIN])[0]
    y = piece(g, x) if not g.chance(0.03) else conditional(g, x, piece)
    if g.chance(0.25):
        alike = [v for v in live if same(v.shape, y.shape)]
        if alike:
            other = g.rng.choice(alike)
            return g.concat([y, other], 1) if g.chance(0.2) else g.either(g.pick("Add", "Add", "Mul", "Sub"), y, other)
    return y


def conditional(g: Builder, x: Value, piece) -> Value:
    """An If whose branches read a value from outside."""
    if not g.inputs or g.opset < 11:
        raise Unfit("opset")
    condition = g.input("b", TensorProto.BOOL, [], []) if g.chance(0.6) else g.const(np.array(g.chance(0.5)))
    graphs, shapes = [], []
    for name in ("then", "else"):
        before = len(g.nodes)
        kept = g.inputs[:]
        y = piece(g, x) if name == "then" or g.chance(0.3) else g.unary("Neg", x)
        inner = g.nodes[before:]
        del g.nodes[before:]
        if g.inputs != kept or not inner:
            raise Unfit("inputs")
        names = {o for n in inner for o in n.output}
        g.made = [v for v in g.made if v.name not in names]
        g.weights = [v for v in g.weights if v.name not in names]
        if y.name not in names:
            raise Unfit("branch")
        out = helper.make_tensor_value_info(y.name, y.dtype, None)
        graphs.append(helper.make_graph(inner, name, [], [out]))
        shapes.append(y.shape)
    if len(shapes[0]) != len(shapes[1]):
        raise Unfit("ranks")
    return g.emit("If", [condition], shapes[0], x.dtype, then_branch=graphs[0], else_branch=graphs[1])


def finish(g: Builder, outputs: list[Value]) -> onnx.ModelProto:
    model = g.model(outputs, g.pick(0.0, 0.5, 1.0))
    if model.ir_version >= 4 and g.chance(0.03) and model.graph.initializer:  # a default that whoever runs the model may replace
        t = g.rng.choice(model.graph.initializer)
        if t.data_type in FLOATS:
            model.graph.input.append(helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)))
    return model
