"""Pieces of convolutional networks: each takes a map [N, C, spatial ..] and returns another, drawn so that rules nearly match."""
from __future__ import annotations

import numpy as np

from build import FAR, FLOATS, Builder, Unfit, Value, is_open, same, size


def divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def window(g: Builder, x: Value, wide: bool = True) -> dict:
    """Kernel, strides, dilations and pads; most are the ordinary ones."""
    rank = x.rank - 2
    if rank < 1:
        raise Unfit("no map")
    k = [g.pick(1, 3)] * rank if g.chance(0.6) else [g.pick(1, 2, 3, 4, 5) for _ in range(rank)]
    s = [1] * rank if g.chance(0.6) else [2] * rank if g.chance(0.5) else [g.pick(1, 2, 3) for _ in range(rank)]
    d = [1] * rank if not wide or g.chance(0.8) else [g.pick(1, 2, 3) for _ in range(rank)]
    if g.chance(0.6):
        before = [(a - 1) * b // 2 for a, b in zip(k, d)]
        after = before
    elif g.chance(0.4):
        before = after = [0] * rank
    else:
        before, after = [g.pick(0, 0, 1, 2) for _ in range(rank)], [g.pick(0, 0, 1, 2) for _ in range(rank)]
    return dict(k=k, s=s, d=d, before=before, after=after)


def spatial(x: Value, w: dict, ceil: bool = False) -> list[np.ndarray]:
    sizes = []
    for n, k, s, d, b, a in zip(x.shape[2:], w["k"], w["s"], w["d"], w["before"], w["after"]):
        room = n + b + a - d * (k - 1) - 1
        if (room < 0).any():
            raise Unfit("kernel larger than the map")
        out = room // s + 1
        if ceil:
            out = -(-room // s) + 1
            out = np.where((out - 1) * s >= n + b, out - 1, out)
        sizes.append(out)
    return sizes


def attributes(g: Builder, w: dict, pads: bool = True) -> dict:
    """As ONNX names them; what is the default is sometimes left out."""
    made = dict(kernel_shape=w["k"], strides=w["s"], dilations=w["d"], pads=[*w["before"], *w["after"]])
    for name, default in (("strides", 1), ("dilations", 1), ("pads", 0)):
        if all(v == default for v in made[name]) and g.chance(0.5):
            del made[name]
    return made


def conv(g: Builder, x: Value, out: int | None = None, w: dict | None = None, group: int | None = None, bias: bool | None = None) -> Value:
    channels = x.fixed(1)
    if not channels:
        raise Unfit("empty")
    w = w or window(g, x)
    if group is None:
        group = 1 if g.chance(0.6) else channels if g.chance(0.4) else g.rng.choice(divisors(channels))
    if channels % group:
        raise Unfit("groups")
    out = out or group * max(1, g.pick(channels, channels, 2 * channels, g.rng.randint(1, 8)) // group)
    if out % group or out > 48:
        raise Unfit("groups")
    fan = channels // group * int(np.prod(w["k"]))
    weight = g.weight([out, channels // group, *w["k"]], max(fan, 1) ** -0.5)
    b = g.weight([out], 1.0) if (g.chance(0.5) if bias is None else bias) else None
    shape = [x.shape[0], size(out), *spatial(x, w)]
    if all(s == 1 for s in w["s"]) and all(d == 1 for d in w["d"]) and g.chance(0.05):
        auto = g.pick("SAME_UPPER", "SAME_LOWER", "VALID")
        sizes = [n - k + 1 if auto == "VALID" else n for n, k in zip(x.shape[2:], w["k"])]
        return g.emit("Conv", [x, weight, b], [*shape[:2], *sizes], group=group, auto_pad=auto, kernel_shape=w["k"])
    return g.emit("Conv", [x, weight, b], shape, **attributes(g, w), group=group if group > 1 or g.chance(0.5) else None)


def square(k: int, rank: int, s: int = 1, p: int | None = None) -> dict:
    p = k // 2 if p is None else p
    return dict(k=[k] * rank, s=[s] * rank, d=[1] * rank, before=[p] * rank, after=[p] * rank)


def pointwise(g: Builder, x: Value, out: int | None = None, bias: bool | None = None, group: int = 1) -> Value:
    return conv(g, x, out, square(1, x.rank - 2), group, bias)


def transposed(g: Builder, x: Value) -> Value:
    channels, w = x.fixed(1), window(g, x)
    group = g.pick(1, 1, g.rng.choice(divisors(channels)))
    out = group * g.pick(1, 2, 3)
    extra = [g.pick(0, 0, 1) if s > 1 else 0 for s in w["s"]]
    sizes = [(n - 1) * s + e + (k - 1) * d + 1 - b - a for n, s, e, k, d, b, a in zip(x.shape[2:], w["s"], extra, w["k"], w["d"], w["before"], w["after"])]
    if any((n <= 0).any() for n in sizes):
        raise Unfit("nothing left")
    weight = g.weight([channels, out // group, *w["k"]], max(channels, 1) ** -0.5)
    b = g.weight([out]) if g.chance(0.5) else None
    return g.emit("ConvTranspose", [x, weight, b], [x.shape[0], size(out), *sizes], **attributes(g, w), group=group, output_padding=extra if any(extra) else None)


def norm(g: Builder, x: Value) -> Value:
    c = x.fixed(1)
    scale, shift, mean = g.weight([c], 0.5, 1.0), g.weight([c]), g.weight([c])
    variance = g.const((g.numpy.random(c) + 0.3).astype(mean.data.dtype))
    epsilon = g.pick(None, 1e-5, 1e-3, 0.1)
    return g.emit("BatchNormalization", [x, scale, shift, mean, variance], x.shape, epsilon=epsilon)


def scale_shape(g: Builder, x: Value) -> list[int]:
    """Of a constant that goes with `x`: one number, one for each channel, or more."""
    rank, c = x.rank, x.fixed(1)
    ones = [1] * rank
    kind = g.rng.random()
    if kind < 0.25:
        return g.pick([], [1], ones)
    if kind < 0.75:
        return [c] + [1] * (rank - 2) if g.chance(0.5) else [1, c] + [1] * (rank - 2)
    for axis in range(rank):
        if not is_open(x.shape[axis]) and g.chance(0.4):
            ones[axis] = int(x.shape[axis][0])
    return ones


def scaled(g: Builder, x: Value) -> Value:
    op = g.pick("Mul", "Add", "Sub", "Div", "Mul", "Add")
    s = g.weight(scale_shape(g, x), 0.3 if op == "Div" else 1.0, 1.5 if op == "Div" else 0.0)
    if op == "Div" and (x.dtype not in FLOATS or (np.abs(s.data) < 0.05).any()):
        raise Unfit("division")
    return g.binary(op, x, s) if op == "Div" else g.either(op, x, s)


def neutral(g: Builder, x: Value) -> Value:
    """What does nothing, or nearly."""
    kind = g.rng.randrange(8)
    number = lambda v: g.number(v, x)
    if kind == 0:
        return g.unary("Identity", x)
    if kind == 1:
        return g.binary("Mul", x, number(g.pick(1, 1, 2)))
    if kind == 2:
        return g.either("Add", x, number(g.pick(0, 0, 1)))
    if kind == 3:
        return g.cast(x, x.dtype)
    if kind == 4:
        return g.unary("Dropout", x) if g.opset >= 12 and x.dtype in FLOATS else g.unary("Identity", x)
    if kind == 5:
        return g.concat([x], g.rng.randrange(x.rank))
    if kind == 6:
        return g.transpose(x, range(x.rank))
    return g.slice(x, [g.rng.randrange(x.rank)], [0], [g.pick(FAR, 2**31 - 1, 10_000)])


def activation(g: Builder, x: Value) -> Value:
    number = lambda v: g.number(v, x)
    kind = g.rng.randrange(20)
    if x.dtype not in FLOATS:
        return g.pick(lambda: g.unary("Relu", x), lambda: g.unary("Abs", x), lambda: g.unary("Neg", x))()
    if kind < 5:
        return g.unary("Relu", x)
    if kind == 5:
        low, high = sorted((g.pick(-1.0, 0.0, 0.5, -2.0), g.pick(6.0, 1.0, 0.0, 3.0)))
        return g.clip(x, g.pick(low, low, None), g.pick(high, high, None))
    if kind == 6:
        return g.either(g.pick("Max", "Min"), x, number(g.pick(0, 0, 6, -1, 1)))
    if kind == 7:
        return g.unary(g.pick("Sigmoid", "Tanh", "Softplus", "Softsign", "Erf", "Neg", "Abs"), x)
    if kind == 8:
        return g.unary("LeakyRelu", x, alpha=g.pick(None, 0.1, 1.0, -0.5))
    if kind == 9:
        return g.unary(g.pick("Elu", "Selu", "HardSigmoid"), x)
    if kind == 10:
        slope = g.weight(g.pick([1], [x.fixed(1)] + [1] * (x.rank - 2)), 0.5)
        return g.emit("PRelu", [x, slope], x.shape)
    if kind in (11, 12):  # x * sigmoid(a x)
        inner = x if g.chance(0.6) else g.either("Mul", x, number(g.pick(1.702, 2.0, 1.0)))
        return g.either("Mul", g.pick(x, x, inner), g.unary("Sigmoid", inner))
    if kind == 13:  # x * clip(x + 3, 0, 6) / 6
        gate = g.clip(g.either("Add", x, number(3)), 0.0, g.pick(6.0, 6.0, 5.0))
        six = number(g.pick(6, 6, 6, 5))
        return g.pick(lambda: g.binary("Div", g.either("Mul", x, gate), six), lambda: g.either("Mul", x, g.binary("Div", gate, six)))()
    if kind == 14:
        return g.either("Mul", x, g.unary("Tanh", g.unary("Softplus", x)))
    if kind == 15:  # gelu, by erf
        e = g.unary("Erf", g.binary("Div", x, number(g.pick(1.4142135, 1.4142135623730951, 1.41))))
        return g.either("Mul", g.either("Mul", x, g.either("Add", e, number(1))), number(0.5))
    if kind == 16:  # gelu, by tanh
        cube = g.binary("Mul", g.binary("Mul", x, x), x) if g.chance(0.5) else g.binary("Pow", x, number(3))
        inner = g.either("Add", x, g.either("Mul", cube, number(0.044715)))
        t = g.unary("Tanh", g.either("Mul", inner, number(0.7978845608)))
        return g.either("Mul", g.either("Mul", x, number(0.5)), g.either("Add", t, number(1)))
    if kind == 17:
        return g.clip(g.binary("Add", g.binary("Mul", x, number(g.pick(0.2, 1 / 6))), number(0.5)), 0.0, 1.0)
    if kind == 18:
        if g.opset >= 14:
            return g.unary("HardSwish", x)
        raise Unfit("opset")
    if g.opset >= 20:
        return g.unary("Gelu", x, approximate=g.pick(None, "tanh"))
    return g.unary("Softmax", x, axis=g.pick(None, 1, x.rank - 1))


def pool(g: Builder, x: Value) -> Value:
    rank, kind = x.rank - 2, g.rng.random()
    if kind < 0.2:
        return g.emit(g.pick("GlobalAveragePool", "GlobalAveragePool", "GlobalMaxPool"), [x], [*x.shape[:2], *[size(1)] * rank])
    if kind < 0.35:
        axes = list(range(2, x.rank)) if g.chance(0.7) else sorted(g.rng.sample(range(x.rank), g.rng.randint(1, x.rank - 1)))
        return g.reduce(g.pick("ReduceMean", "ReduceMean", "ReduceSum", "ReduceMax"), x, axes, True)
    w = window(g, x, wide=False)
    if g.chance(0.3):
        w = {**w, "s": w["k"], "before": [0] * rank, "after": [0] * rank}
    w["before"], w["after"] = ([min(p, k - 1) for p, k in zip(w[e], w["k"])] for e in ("before", "after"))
    ceil = g.opset >= 10 and g.chance(0.2)
    if kind < 0.7:
        if g.opset >= 10 and g.chance(0.1):
            w["d"] = [g.pick(1, 2) for _ in range(rank)]
        made = attributes(g, w)
        if g.opset < 10:
            made.pop("dilations", None)
        return g.emit("MaxPool", [x], [*x.shape[:2], *spatial(x, w, ceil)], **made, ceil_mode=int(ceil) or None)
    made = attributes(g, w)
    made.pop("dilations", None)
    return g.emit("AveragePool", [x], [*x.shape[:2], *spatial(x, w, ceil)], **made, ceil_mode=int(ceil) or None, count_include_pad=g.pick(None, 0, 1))


def padded(g: Builder, x: Value) -> Value:
    rank = x.rank
    before, after = [0] * rank, [0] * rank
    for axis in range(rank):
        if axis >= 2 or g.chance(0.08):
            before[axis], after[axis] = g.pick(0, 1, 1, 2), g.pick(0, 1, 1, 2)
            if g.chance(0.05):
                before[axis] = -1
    mode = "constant" if g.chance(0.8) else g.pick("reflect", "edge")
    value = g.pick(0.0, 0.0, 0.0, 1.0, -1.5) if mode == "constant" else 0.0
    y = g.pad(x, before, after, mode, value)
    if g.chance(0.3):  # put in front of a window that has no pads of its own
        w = {**square(3, rank - 2), "before": [0] * (rank - 2), "after": [0] * (rank - 2)}
        return conv(g, y, None, w) if g.chance(0.6) else g.emit("MaxPool", [y], [*y.shape[:2], *spatial(y, w)], kernel_shape=w["k"])
    return y


def cut(g: Builder, x: Value) -> Value:
    """A slice: of channels, of the map, with a step, backwards."""
    axis = g.pick(1, 1, *range(x.rank))
    least = int(x.shape[axis].min())
    if least < 1:
        raise Unfit("empty")
    step = 1 if g.opset < 10 or g.chance(0.6) else g.pick(2, 3, -1, -2)
    if step < 0:
        return g.slice(x, [axis], [g.pick(-1, FAR, -2)], [g.pick(-FAR, -(2**31), -(least + 1))], [step])
    start, end = g.pick(0, 0, 1, g.rng.randrange(least), -g.rng.randint(1, least)), g.pick(FAR, FAR, least, g.rng.randint(1, least + 2), -1)
    y = g.slice(x, [axis - x.rank if g.chance(0.2) else axis], [start], [end], [step] if step != 1 or g.chance(0.3) else None)
    if (y.shape[axis] == 0).any() and not g.chance(0.05):
        raise Unfit("empty")
    return y


def picked(g: Builder, x: Value) -> Value:
    """Channels by a constant index: some, all, permuted, repeated."""
    axis = g.pick(1, 1, 1, *range(x.rank))
    n = int(x.shape[axis].min())
    if n < 1:
        raise Unfit("empty")
    index = list(range(n)) if g.chance(0.2) else g.rng.sample(range(n), n) if g.chance(0.5) else [g.rng.randrange(-n, n) for _ in range(g.rng.randint(1, n))]
    shape = [size(len(index)) if i == axis else s for i, s in enumerate(x.shape)]
    return g.emit("Gather", [x, g.ints(index, g.pick(np.int64, np.int32))], shape, axis=axis)


def shuffled(g: Builder, x: Value) -> Value:
    """Channel shuffle, as a reshape, a transpose and a reshape."""
    c, rank = x.fixed(1), x.rank
    a = g.rng.choice(divisors(c))
    sizes = [-1 if is_open(n) else int(n[0]) for n in x.shape[2:]]
    if sizes.count(-1) > 1:
        raise Unfit("two open axes")
    wide = g.reshape(x, [0, a, c // a, *sizes])
    perm = [0, 2, 1, *range(3, rank + 1)] if g.chance(0.85) else [0, *g.rng.sample(range(1, rank + 1), rank)]
    turned = g.transpose(wide, perm)
    if perm[3:] != list(range(3, rank + 1)):
        return g.reshape(turned, [0, -1, *[1] * (rank - 2)])
    return g.reshape(turned, [0, c, *sizes])


def turned(g: Builder, x: Value) -> Value:
    """A transpose, something, and the transpose back, or not."""
    perm = g.rng.sample(range(x.rank), x.rank) if g.chance(0.4) else [0, *range(2, x.rank), 1]
    y = g.transpose(x, perm)
    back = [perm.index(i) for i in range(x.rank)]
    if g.chance(0.7):
        y = g.unary("Relu", y) if g.chance(0.5) else g.either("Mul", y, g.weight([int(y.shape[-1].min())] if not is_open(y.shape[-1]) else [1]))
    return g.transpose(y, back if g.chance(0.9) else g.rng.sample(range(x.rank), x.rank))


def resized(g: Builder, x: Value) -> Value:
    rank = x.rank
    # thirds of integers fall to either side of a whole number as they are rounded
    factor = g.pick(2, 2, 3) if x.dtype in FLOATS else 2
    shape = [*x.shape[:2], *[n * factor for n in x.shape[2:]]]
    scales = g.const(np.array([1, 1, *[factor] * (rank - 2)], np.float32))
    mode = g.pick("nearest", "nearest", "linear")
    if g.opset < 10:
        return g.emit("Upsample", [x, scales], shape, mode=mode) if g.opset == 9 else g.emit("Upsample", [x], shape, mode=mode, scales=[1.0, 1.0, *[float(factor)] * (rank - 2)])
    if g.opset == 10:
        return g.emit("Resize", [x, scales], shape, mode=mode)
    places = ["asymmetric", "half_pixel", "pytorch_half_pixel"]
    if x.dtype in FLOATS or mode == "nearest":
        places.append("align_corners")
    how = dict(mode=mode, coordinate_transformation_mode=g.pick(*places))
    if mode == "nearest":
        how["nearest_mode"] = g.pick("floor", "round_prefer_floor", "ceil", None)
    roi = None if g.opset >= 13 else g.const(np.zeros(0, np.float32))
    if not any(is_open(s) for s in shape) and g.chance(0.3):
        empty = None if g.opset >= 13 else g.const(np.zeros(0, np.float32))
        return g.emit("Resize", [x, roi, empty, g.ints([int(s[0]) for s in shape])], shape, **how)
    return g.emit("Resize", [x, roi, scales], shape, **how)


def blocks(g: Builder, x: Value) -> Value:
    """Space to depth, as an operator, by slices (Focus) or by reshapes; depth to space."""
    if x.rank != 4:
        raise Unfit("rank")
    c, (h, w) = x.fixed(1), x.shape[2:]
    kind = g.rng.random()
    if kind < 0.25:
        if c % 4:
            raise Unfit("channels")
        return g.emit("DepthToSpace", [x], [x.shape[0], size(c // 4), h * 2, w * 2], blocksize=2, mode=g.pick("DCR", "CRD") if g.opset >= 11 else None)
    if (h % 2).any() or (w % 2).any():
        if not is_open(h) and not is_open(w):
            x = g.slice(x, [2, 3], [0, 0], [int(h[0]) // 2 * 2, int(w[0]) // 2 * 2])
            h, w = x.shape[2:]
        else:
            raise Unfit("odd")
    if kind < 0.5:
        y = g.emit("SpaceToDepth", [x], [x.shape[0], size(4 * c), h // 2, w // 2], blocksize=2)
    else:
        order = [(0, 0), (1, 0), (0, 1), (1, 1)]
        if g.chance(0.4):
            g.rng.shuffle(order)
        y = g.concat([g.slice(x, [2, 3], [i, j], [FAR, FAR], [2, 2]) for i, j in order], 1)
    return conv(g, y) if g.chance(0.6) else y


def flat(g: Builder, x: Value) -> Value:
    """Pooled, flattened, a fully connected layer, and a map of one pixel again."""
    c, rank = x.fixed(1), x.rank
    y = g.emit("GlobalAveragePool", [x], [*x.shape[:2], *[size(1)] * (rank - 2)]) if g.chance(0.7) else g.reduce("ReduceMean", x, range(2, rank), True)
    y = g.emit("Flatten", [y], [y.shape[0], size(c)], axis=1) if g.chance(0.5) else g.squeeze(y, range(2, rank))
    out = g.pick(c, 3)
    if g.chance(0.5):
        turn = g.chance(0.5)
        w = g.weight([out, c] if turn else [c, out], max(c, 1) ** -0.5)
        alpha, beta = g.pick(None, None, 0.5, 2.0), g.pick(None, None, 0.5)
        bias = g.weight(g.pick([out], [1, out], [1], [])) if g.chance(0.7) or g.opset < 11 else None
        y = g.emit("Gemm", [y, w, bias], [y.shape[0], size(out)], alpha=alpha, beta=beta, transB=int(turn) or None)
    else:
        y = g.matmul(y, g.weight([c, out], max(c, 1) ** -0.5))
        if g.chance(0.6):
            y = g.either("Add", y, g.weight([out]))
    if g.chance(0.3):
        y = norm(g, y)
    if g.chance(0.4):
        y = g.pick(lambda: g.unary("Relu", y), lambda: g.unary("Sigmoid", y), lambda: g.either("Mul", y, g.weight([out])), lambda: g.unary("Softmax", y, axis=g.pick(-1, 1, 0) if g.opset >= 11 else 1))()
    y = g.unsqueeze(y, range(2, rank)) if g.chance(0.5) else g.reshape(y, [-1 if is_open(y.shape[0]) else 0, out, *[1] * (rank - 2)])
    return g.either("Mul", x, y) if same(x.shape[:2], y.shape[:2]) and g.chance(0.6) else y

