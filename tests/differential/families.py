"""The shapes of the convolution systems and of re-parameterised blocks, each with places where something else may stand."""
from __future__ import annotations

import numpy as np

from build import FAR, NUMPY, Builder, TensorProto, Unfit, Value, is_open, same, size
from parts import activation, conv, divisors, norm, padded, pointwise, pool, scaled, spatial, square, window


def branch(g: Builder, x: Value, out: int, w: dict, group: int) -> Value:
    """One summand of a block that is trained with branches: some window that gives a map of the size that `w` gives."""
    kind, rank = g.rng.random(), x.rank - 2
    c = x.fixed(1)
    if kind < 0.2 and c == out and all(s == 1 for s in w["s"]):
        y = x
    elif kind < 0.35:
        inner = {**square(1, rank), "s": w["s"]}
        y = conv(g, x, out, inner, group)
    elif kind < 0.45:
        first = pointwise(g, x, out)
        y = conv(g, first, out, w, group if out % group == 0 else 1)
    elif kind < 0.52:
        y = g.emit("AveragePool", [x], conv_shape(x, x.fixed(1), w), kernel_shape=w["k"], strides=w["s"], pads=[*w["before"], *w["after"]], count_include_pad=g.pick(0, 1, 1))
    elif kind < 0.6 and rank == 2:
        i = g.pick(0, 1)
        thin = {k: [v if (a == i or k in "sd") else (1 if k == "k" else 0) for a, v in enumerate(w[k])] for k in w}
        y = conv(g, x, out, thin, group)
    else:
        y = conv(g, x, out, w, group)
    if g.chance(0.5):
        y = norm(g, y)
    if g.chance(0.12):
        y = scaled(g, y)
    if g.chance(0.04):
        y = activation(g, y)
    return y


def conv_shape(x: Value, out: int, w: dict):
    if any(d != 1 for d in w["d"]) or any(p >= k for p, k in zip([*w["before"], *w["after"]], w["k"] * 2)):
        raise Unfit("pool")
    return [x.shape[0], size(out), *spatial(x, w)]


def branches(g: Builder, x: Value) -> Value:
    rank, c = x.rank - 2, x.fixed(1)
    w = square(3, rank, g.pick(1, 1, 2)) if g.chance(0.6) else window(g, x)
    out, group = (c, g.pick(1, 1, c)) if g.chance(0.7) else (2 * c, 1)
    if out > 32:
        raise Unfit("wide")
    made = [y for y in (branch(g, x, out, w, group) for _ in range(g.pick(2, 2, 3, 4))) if y is not None]
    made = [y for y in made if same(y.shape, made[0].shape)]
    if len(made) < 2:
        return made[0]
    if g.chance(0.2):
        y = g.emit("Sum", made, made[0].shape)
    elif g.chance(0.15):
        y = g.concat(made, 1)
    else:
        y = made[0]
        for other in made[1:]:
            y = g.binary("Sub", y, other) if g.chance(0.1) else g.either("Add", y, other)
    return activation(g, y) if g.chance(0.4) else y


def siblings(g: Builder, x: Value) -> Value:
    """Convolutions that read one map, or parts of it, and are joined."""
    rank, c = x.rank - 2, x.fixed(1)
    w = square(g.pick(1, 3), rank)
    if g.chance(0.4) and c >= 2:
        k = g.rng.randint(1, c - 1)
        parts = g.split(x, 1, [k, c - k]) if g.chance(0.5) else [g.slice(x, [1], [0], [k]), g.slice(x, [1], [k], [FAR])]
        made = [conv(g, p, None, w) if g.chance(0.8) else p for p in parts]
    else:
        made = [conv(g, x, None, w if g.chance(0.8) else window(g, x)) for _ in range(g.pick(2, 2, 3))]
    if g.chance(0.3):
        made = [g.unary("Relu", y) for y in made]
    if g.chance(0.3):
        g.rng.shuffle(made)
    y = g.concat(made, 1)
    return g.pick(lambda: y, lambda: y, lambda: pointwise(g, y), lambda: norm(g, y), lambda: g.unary("Relu", y))()


def ghost(g: Builder, x: Value) -> Value:
    act = g.chance(0.6)
    p = conv(g, x, None, square(g.pick(1, 3), x.rank - 2), 1)
    n = p.fixed(1)
    p = norm(g, p) if g.chance(0.5) else p
    p = g.unary("Relu", p) if act else p
    source = p if g.chance(0.9) else x if x.fixed(1) == n else p
    q = conv(g, source, n * g.pick(1, 1, 2), square(3, x.rank - 2), n if g.chance(0.9) else 1)
    q = g.unary("Relu", q) if (act if g.chance(0.9) else not act) else q
    y = g.concat([p, q] if g.chance(0.9) else [q, p], 1)
    total = y.fixed(1)
    return y if g.chance(0.5) else g.slice(y, [1], [g.pick(0, 0, 0, 1)], [max(2, total - g.pick(1, 1, 0, n))])


def calibrated(g: Builder, x: Value) -> Value:
    """SCConv's path."""
    rank, c = x.rank - 2, x.fixed(1)
    if rank != 2 or g.opset < 11:
        raise Unfit("map")
    r = g.pick(2, 2, 4)
    w = dict(k=[r, r], s=[r, r], d=[1, 1], before=[0, 0], after=[0, 0])
    small = g.emit("AveragePool", [x], [*x.shape[:2], *spatial(x, w)], kernel_shape=[r, r], strides=[r, r])
    up = conv(g, small, c, square(3, 2), g.pick(1, 1, c))
    if (x.shape[2] % r).any() or (x.shape[3] % r).any() or g.chance(0.5):
        big = resize_like(g, up, x)
    else:
        big = g.emit("Resize", [up, None if g.opset >= 13 else g.const(np.zeros(0, np.float32)), g.const(np.array([1, 1, r, r], np.float32))], x.shape,
                     mode=g.pick("nearest", "nearest", "linear"), coordinate_transformation_mode=g.pick("asymmetric", "half_pixel"), nearest_mode="floor")
    gate = g.unary("Sigmoid", g.either("Add", x if g.chance(0.9) else g.unary("Neg", x), big))
    body = conv(g, x, c, square(3, 2), g.pick(1, 1, c))
    y = g.either("Mul", body, gate)
    return conv(g, y, None, square(3, 2, g.pick(1, 2)))


def resize_like(g: Builder, small: Value, x: Value) -> Value:
    """To the size of another map, as exporters write it."""
    sizes = g.concat([g.emit("Slice", [g.shape_of(small), g.ints([0]), g.ints([2]), g.ints([0])], [size(2)], TensorProto.INT64),
                      g.emit("Slice", [g.shape_of(x), g.ints([2]), g.ints([4]), g.ints([0])], [size(2)], TensorProto.INT64)], 0)
    roi = None if g.opset >= 13 else g.const(np.zeros(0, np.float32))
    empty = None if g.opset >= 13 else g.const(np.zeros(0, np.float32))
    return g.emit("Resize", [small, roi, empty, sizes], [*small.shape[:2], *x.shape[2:]], mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")


def routes(g: Builder, x: Value, e: int) -> Value:
    """Coefficients [N, E]: sigmoids, a softmax over one axis or the other, or constants of a static batch."""
    c = x.fixed(1)
    if g.chance(0.08) and not is_open(x.shape[0]):
        return g.weight([x.fixed(0), e])
    if g.chance(0.15):
        return g.input("r", g.dtype, [x.shape[0], size(e)], ["N" if is_open(x.shape[0]) else None, None])
    s = g.emit("GlobalAveragePool", [x], [*x.shape[:2], *[size(1)] * (x.rank - 2)])
    s = g.emit("Flatten", [s], [x.shape[0], size(c)])
    s = g.matmul(s, g.weight([c, e]))
    s = g.either("Add", s, g.weight([e])) if g.chance(0.6) else s
    if g.chance(0.4):
        return g.unary("Sigmoid", s)
    if g.chance(0.15):
        return g.unary("Relu", s)
    return g.unary("Softmax", s, axis=g.pick(1, 1, 1, 0, -1 if g.opset >= 11 else 1))


def confused(g: Builder, r: Value) -> Value:
    """Coefficients with the experts, or the samples, in another order or place: all of it legal where sizes are equal."""
    if not g.chance(0.25):
        return r
    n, e = r.shape[0], int(r.shape[1][0])
    kind = g.rng.randrange(5)
    if kind == 0 and (n == e).all():
        return g.transpose(r, [1, 0])
    if kind == 1:
        order = g.rng.sample(range(e), e)
        return g.emit("Gather", [r, g.ints(order)], r.shape, axis=1)
    if kind == 2 and e > 1:
        return g.concat([g.slice(r, [1], [1], [FAR]), g.slice(r, [1], [0], [1])], 1)
    if kind == 3 and not is_open(n) and int(n[0]) > 1:
        return g.concat([g.slice(r, [0], [1], [FAR]), g.slice(r, [0], [0], [1])], 0)
    if kind == 4 and not is_open(n):
        return g.reshape(g.transpose(r, [1, 0]), [int(n[0]), e])
    return r


def mixed(g: Builder, r: Value, experts: Value) -> Value:
    """The product of coefficients and experts, as exporters write it or transposed."""
    kind = g.rng.random()
    if kind < 0.75:
        return g.matmul(r, experts)
    if kind < 0.9:
        return g.transpose(g.matmul(g.transpose(experts, [1, 0]), g.transpose(r, [1, 0])), [1, 0])
    if g.opset < 12:
        raise Unfit("opset")
    return g.emit("Einsum", [r, experts], [r.shape[0], experts.shape[1]], equation="be,ef->bf")


def mixture(g: Builder, x: Value) -> Value:
    """Experts mixed for each sample: a grouped convolution over the folded batch, one for each sample, or one for each expert."""
    rank, c = x.rank - 2, x.fixed(1)
    form = g.pick("group", "sum", "unroll", "linear")
    e, k = g.pick(1, 2, 2, 3, 4, c), g.pick(1, 1, 3)
    group = g.pick(1, 1, 1, c, g.rng.choice(divisors(c)))
    out = group * g.pick(1, 2, c // group, c // group)
    if e * out > 64:
        raise Unfit("wide")
    w = square(k, rank, g.pick(1, 1, 2))
    sizes = spatial(x, w)
    shape = [out, c // group, *w["k"]]
    r = confused(g, routes(g, x, e))
    if form == "linear":
        return mixed_linear(g, x, r, e)
    if form == "sum":
        parts = []
        for i in range(e):
            one = g.slice(r, [1], [i], [i + 1]) if g.chance(0.7) else g.emit("Gather", [r, g.ints([i])], [r.shape[0], size(1)], axis=1)
            one = g.unsqueeze(one, range(2, rank + 2)) if g.chance(0.5) else g.reshape(one, [-1, 1, *[1] * rank])
            parts.append(g.either("Mul", one, conv(g, x, out, w, group)))
        y = parts[0]
        for p in parts[1:]:
            y = g.either("Add", y, p)
        return y
    flat = int(np.prod(shape))
    kernels = mixed(g, r, g.weight([e, flat], (flat / out) ** -0.5))
    biases = g.matmul(r, g.weight([e, out])) if g.chance(0.4) else None
    n = x.shape[0]
    if is_open(n):
        raise Unfit("open batch")
    n = int(n[0])
    if form == "unroll":
        made = []
        for i in range(n):
            one = g.slice(x, [0], [i], [i + 1])
            j = i if g.chance(0.97) else g.rng.randrange(n)
            kernel = g.reshape(g.slice(kernels, [0], [j], [j + 1]), shape)
            bias = None if biases is None else g.reshape(g.slice(biases, [0], [j], [j + 1]), [out])
            made.append(g.emit("Conv", [one, kernel, bias], [size(1), size(out), *sizes], kernel_shape=w["k"], strides=w["s"], pads=[*w["before"], *w["after"]], group=group))
        return g.concat(made, 0) if n > 1 else made[0]
    if n == out and g.chance(0.1):
        kernels = g.reshape(g.transpose(g.reshape(kernels, [n, out, flat // out]), [1, 0, 2]), [n * out, *shape[1:]])
    else:
        kernels = g.reshape(kernels, [n * out, *shape[1:]])
    if any(is_open(s) for s in x.shape[2:]):
        raise Unfit("open map")
    wide = g.reshape(x, [1, n * c, *[int(s[0]) for s in x.shape[2:]]])
    bias, late = None, None
    if biases is not None:
        turned = g.transpose(biases, [1, 0]) if g.chance(0.15) else biases
        if g.chance(0.6):
            bias = g.reshape(turned, [n * out])
        elif not turned is biases and n != out:
            raise Unfit("bias")
        else:
            late = g.reshape(turned, [n, out, *[1] * rank])
    y = g.emit("Conv", [wide, kernels, bias], [size(1), size(n * out), *sizes], kernel_shape=w["k"], strides=w["s"], pads=[*w["before"], *w["after"]], group=n * group)
    y = g.reshape(y, [n, out, *[int(s[0]) for s in sizes]])
    return y if late is None else g.either("Add", y, late)


def mixed_linear(g: Builder, x: Value, r: Value, e: int) -> Value:
    c, out = x.fixed(1), g.pick(2, 3)
    v = g.reduce("ReduceMean", x, range(2, x.rank), False)
    w = g.matmul(r, g.weight([e, out * c]))
    open_batch = is_open(x.shape[0])
    first = -1 if open_batch else x.fixed(0)
    if g.chance(0.5):
        y = g.matmul(g.reshape(w, [first, out, c]), g.unsqueeze(v, [2]))
        y = g.squeeze(y, [2])
    else:
        y = g.squeeze(g.matmul(g.unsqueeze(v, [1]), g.reshape(w, [first, c, out])), [1])
    y = g.either("Add", y, g.weight([out])) if g.chance(0.4) else y
    return g.unsqueeze(y, range(2, x.rank))


def attention(g: Builder, x: Value) -> Value:
    """Split attention, or nearly."""
    rank, c = x.rank - 2, x.fixed(1)
    radix, cardinality = g.pick(2, 2, 3, 4), g.pick(1, 1, 2)
    half = g.pick(2, 4)
    u = conv(g, x, radix * half, square(3, rank), g.pick(1, 1, *(d for d in divisors(c) if (radix * half) % d == 0)))
    u = g.unary("Relu", u) if g.chance(0.85) else u
    parts = g.split(u, 1, [half] * radix)
    s = parts[0]
    for p in parts[1:]:
        s = g.either("Add", s, p)
    s = g.emit("GlobalAveragePool", [s], [*s.shape[:2], *[size(1)] * rank])
    a = pointwise(g, s, 4, True)
    a = pointwise(g, g.unary("Relu", a), radix * half, True)
    if any(is_open(n) for n in a.shape[1:]):
        raise Unfit("open")
    n = 0 if g.chance(0.5) or is_open(a.shape[0]) else a.fixed(0)
    if cardinality > 1 and half % cardinality == 0:
        v = g.transpose(g.reshape(a, [n, cardinality, radix, half // cardinality]), [0, 2, 1, 3])
    else:
        v = g.reshape(a, [n, radix, half] if g.chance(0.9) else [n, half, radix])
    if v.rank == 3 and int(v.shape[1][0]) != radix:
        v = g.unary("Softmax", v, axis=2)
    else:
        v = g.unary("Softmax", v, axis=1 if g.chance(0.85) or g.opset < 13 else v.rank - 1)
    a = g.reshape(v, [0, radix * half, *[1] * rank])
    weights = g.split(a, 1, [half] * radix)
    if g.chance(0.06):
        g.rng.shuffle(weights)
    y = None
    for q, p in zip(weights, parts):
        term = g.either("Mul", q, p)
        y = term if y is None else g.either("Add", y, term)
    return y


def involution(g: Builder, x: Value) -> Value:
    """Neighbours by slices of a padded map, weighted by a map of kernels."""
    if x.rank != 4 or g.opset < 10:
        raise Unfit("rank")
    c, (h, w) = x.fixed(1), (x.fixed(2), x.fixed(3))
    k, stride, d = g.pick(1, 3, 3, 2), g.pick(1, 1, 2), g.pick(1, 1, 2)
    groups = g.rng.choice(divisors(c))
    p = (k - 1) * d // 2
    rows, columns = (h + 2 * p - d * (k - 1) - 1) // stride + 1, (w + 2 * p - d * (k - 1) - 1) // stride + 1
    if rows < 1 or columns < 1 or k * k * c > 100:
        raise Unfit("size")
    source = g.pad(x, [0, 0, p, p], [0, 0, p, p], value=0.0 if g.chance(0.95) else 1.0) if p else x
    last = lambda i, n: i * d + (n - 1) * stride + 1
    taps = [g.slice(source, [2, 3], [i * d, j * d], [last(i, rows), last(j, columns)], [stride, stride]) for i in range(k) for j in range(k)]
    if g.chance(0.1):
        g.rng.shuffle(taps)
    u = g.concat([g.unsqueeze(t, [2]) for t in taps], 2)
    n = -1 if is_open(x.shape[0]) else x.fixed(0)
    u = g.reshape(u, [n, groups, c // groups, k * k, rows, columns])
    reduced = g.emit("AveragePool", [x], [*x.shape[:2], size((h - 1) // stride + 1), size((w - 1) // stride + 1)], kernel_shape=[1, 1], strides=[stride, stride]) if stride > 1 else x
    span = conv(g, g.unary("Relu", pointwise(g, reduced)), groups * k * k, square(1, 2), 1)
    if int(span.shape[2][0]) != rows or int(span.shape[3][0]) != columns:
        raise Unfit("size")
    ker = g.reshape(span, [n, groups, 1, k * k, rows, columns])
    y = g.reduce("ReduceSum" if g.chance(0.95) else "ReduceMean", g.either("Mul", ker, u), [3], False)
    return g.reshape(y, [n, c, rows, columns])


def overparameterised(g: Builder, x: Value) -> Value:
    """DO-Conv: a kernel that is computed from two constants."""
    if g.opset < 12:
        raise Unfit("opset")
    c, rank = x.fixed(1), x.rank - 2
    k = 3 ** rank
    out, m = g.pick(c, 4), g.pick(k, k + 2)
    d = g.either("Add", g.weight([c, k, m], 0.3), g.const(np.broadcast_to(np.eye(k, m), (c, k, m)).astype(NUMPY[g.dtype])))
    kernel = g.emit("Einsum", [d, g.weight([out, c, m], 0.3)], [size(out), size(c), size(k)], equation=g.pick("ims,ois->oim", "ims,ois->oim", "bij,abj->abi"))
    kernel = g.reshape(kernel, [out, c, *[3] * rank])
    bias = g.weight([out]) if g.chance(0.5) else None
    w = square(3, rank)
    return g.emit("Conv", [x, kernel, bias], [x.shape[0], size(out), *x.shape[2:]], kernel_shape=w["k"], pads=[1] * 2 * rank)


def chain(g: Builder, x: Value) -> Value:
    """Linear operators in a row, which compose if the border allows it."""
    for _ in range(g.pick(2, 2, 3)):
        x = g.pick(lambda: conv(g, x, None, window(g, x)), lambda: pointwise(g, x), lambda: norm(g, x), lambda: padded(g, x), lambda: pool(g, x), lambda: scaled(g, x))()
    return x
