"""The convolution systems as small blocks, in every form that implementations write them, and what convc must make of each.

usage: python blocks.py [NAME ..]         lists the blocks, or prints what PyTorch computes with them

Written from the papers; weights are random, seeded by whoever exports them (`randomise` of shared/models/export.py gives
BatchNorm statistics that are not trivial). `BLOCKS` maps each name to a `Block`.
"""
from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn as nn
import torch.nn.functional as F


@dataclass(frozen=True)
class Block:
    """How to make a block, the inputs it takes, and what is right."""

    make: Callable[[], nn.Module]
    # operators of domain ai.convc that must be there, and no others
    want: dict[str, int] = field(default_factory=dict)
    # exact number of Conv beside them; None: any
    conv: int | None = None
    # operators that must be gone, beside BatchNormalization
    gone: tuple[str, ...] = ()
    channels: int = 16
    # height and width at batch 1, 2, 3; the last two are odd unless the block needs even sizes
    sizes: tuple[tuple[int, int], ...] = ((14, 14), (13, 11), (17, 15))
    batches: tuple[int, ...] = (1, 2, 3)
    dynamic: tuple[str, ...] = ("n", "nhw")


BLOCKS: dict[str, Block] = {}
EVEN = ((14, 14), (18, 10), (22, 14))


def add(name: str, make: Callable[..., nn.Module], *args, want=None, conv=None, gone=(), **options) -> None:
    """Lists a block; options that are fields of `Block` go there, the others to `make`."""
    fields = {k: options.pop(k) for k in ("channels", "sizes", "batches", "dynamic") if k in options}
    BLOCKS[name] = Block(functools.partial(make, *args, **options), want or {}, conv, tuple(gone), **fields)


def conv_bn(cin, cout, k=1, stride=1, groups=1, act=False, pad=None):
    pad = k // 2 if pad is None else pad
    layers = [nn.Conv2d(cin, cout, k, stride, pad, groups=groups, bias=False), nn.BatchNorm2d(cout)]
    return nn.Sequential(*layers, *([nn.ReLU()] if act else []))


# CondConv (arXiv 1904.04971) and DynamicConv (arXiv 1912.03458)


class Router(nn.Module):
    """Coefficients [N, E] of each sample: sigmoids, a softmax with temperature, or the same numbers for every input."""

    def __init__(self, c, experts, kind, style="linear", temperature=1.0):
        super().__init__()
        self.kind, self.style, self.temperature = kind, style, temperature
        if kind == "constant":
            self.register_buffer("routes", torch.rand(1, experts))
        elif style == "linear":
            self.fc = nn.Linear(c, experts)
        else:
            mid = max(c // 4, 4)
            self.fc = nn.Sequential(nn.Conv2d(c, mid, 1, bias=False), nn.ReLU(), nn.Conv2d(mid, experts, 1))

    def forward(self, x):
        if self.kind == "constant":
            return self.routes.expand(x.shape[0], -1)
        s = F.adaptive_avg_pool2d(x, 1)
        s = self.fc(s.flatten(1)) if self.style == "linear" else self.fc(s).flatten(1)
        return torch.sigmoid(s) if self.kind == "sigmoid" else F.softmax(s / self.temperature, 1)


class Mixed(nn.Module):
    """A convolution whose kernel is mixed for each sample, BatchNorm and Relu after it.

    form: `group` one convolution over the batch folded into groups; `unroll` one convolution for each sample; `sum` one
    for each expert, weighted; `einsum` as group, the kernels by einsum. bias: none, mixed like the kernels, or plain.
    elsewhere: the router reads another tensor than the convolution does.
    """

    def __init__(self, kind, form, k=3, stride=1, groups=1, experts=4, bias="none", style="linear", temperature=1.0, cin=16, cout=16, elsewhere=False):
        super().__init__()
        self.form, self.k, self.stride, self.groups, self.cout = form, k, stride, groups, cout
        self.router = Router(cin, experts, kind, style, temperature)
        self.experts = nn.Parameter(torch.randn(experts, cout, cin // groups, k, k) * (2 * groups / (cin * k * k)) ** 0.5)
        self.biases = nn.Parameter(torch.randn(experts, cout) * 0.1) if bias == "mixed" else None
        self.bias = nn.Parameter(torch.randn(cout) * 0.1) if bias == "plain" else None
        self.before = conv_bn(cin, cin, act=True) if elsewhere else nn.Identity()
        self.after = nn.Sequential(nn.BatchNorm2d(cout), nn.ReLU())

    def mixed(self, x, r):
        b, c, h, w = x.shape
        window = dict(stride=self.stride, padding=self.k // 2)
        if self.form == "sum":
            biases = self.experts.shape[0] * [None] if self.biases is None else self.biases
            y = sum(r[:, e].view(-1, 1, 1, 1) * F.conv2d(x, k, b, **window, groups=self.groups) for e, (k, b) in enumerate(zip(self.experts, biases)))
        elif self.form == "unroll":
            ys = []
            for i in range(b):
                kernel = (r[i].view(-1, 1, 1, 1, 1) * self.experts).sum(0)
                bias = None if self.biases is None else torch.mv(self.biases.t(), r[i])
                ys.append(F.conv2d(x[i : i + 1], kernel, bias, **window, groups=self.groups))
            y = torch.cat(ys)
        else:
            if self.form == "einsum":
                kernels = torch.einsum("be,eoikl->boikl", r, self.experts)
            else:
                kernels = torch.matmul(r, self.experts.flatten(1))
            kernels = kernels.reshape(b * self.cout, c // self.groups, self.k, self.k)
            bias = None if self.biases is None else torch.mm(r, self.biases).view(-1)
            y = F.conv2d(x.reshape(1, b * c, h, w), kernels, bias, **window, groups=b * self.groups)
            y = y.view(b, self.cout, y.shape[-2], y.shape[-1])
        return y if self.bias is None else y + self.bias.view(1, -1, 1, 1)

    def forward(self, x):
        return self.after(self.mixed(self.before(x), self.router(x)))


class MixedLinear(nn.Module):
    """A fully connected layer mixed for each sample, after global pooling."""

    def __init__(self, kind, form, cin=16, cout=24, experts=4):
        super().__init__()
        self.form, self.cout, self.router = form, cout, Router(cin, experts, kind)
        self.experts = nn.Parameter(torch.randn(experts, cout, cin) * 0.2)

    def forward(self, x):
        r, v = self.router(x), F.adaptive_avg_pool2d(x, 1).flatten(1)
        if self.form == "sum":
            return sum(r[:, e : e + 1] * F.linear(v, w) for e, w in enumerate(self.experts))
        kernels = torch.matmul(r, self.experts.flatten(1)).view(x.shape[0], self.cout, -1)
        return torch.bmm(kernels, v.unsqueeze(2)).squeeze(2)


for kind, op in (("sigmoid", "CondConv"), ("softmax", "DynamicConv")):
    short = "condconv" if op == "CondConv" else "dynconv"
    extra = dict(style="conv", temperature=30.0, bias="mixed") if kind == "softmax" else {}
    for form in ("group", "einsum", "unroll", "sum"):
        some = dict(want={op: 1}, batches=(1, 2, 3, 4) if form != "sum" else (1, 3), sizes=((14, 14), (13, 11), (17, 15), (13, 11)))
        add(f"{short}_{form}", Mixed, kind, form, **extra, **some)
        if form in ("group", "sum"):
            add(f"{short}_{form}_s2", Mixed, kind, form, stride=2, **extra, **some)
            add(f"{short}_{form}_depthwise", Mixed, kind, form, groups=16, **extra, **some)
            add(f"{short}_{form}_1x1", Mixed, kind, form, k=1, **extra, **some)
            add(f"{short}_{form}_grouped", Mixed, kind, form, groups=2, cout=24, **extra, **some)
            add(f"{short}_{form}_biases", Mixed, kind, form, bias="mixed", **some)
            add(f"{short}_{form}_bias", Mixed, kind, form, bias="plain", **some)
            add(f"{short}_{form}_elsewhere", Mixed, kind, form, elsewhere=True, **some)
            add(f"{short}_{form}_two", Mixed, kind, form, experts=2, **some)
            add(f"{short}_{form}_linear", MixedLinear, kind, form, **some)
    for form in ("group", "sum", "unroll"):
        one = dict(want={}, conv=1, gone=("Softmax", "Sigmoid", "Gemm", "MatMul")) if kind == "softmax" else dict(want={op: 1})
        add(f"{short}_{form}_single", Mixed, kind, form, experts=1, **one)
for form in ("group", "sum", "unroll"):
    add(f"constant_routes_{form}", Mixed, "constant", form, conv=1, gone=("MatMul", "Mul", "Reshape"))
    add(f"constant_routes_{form}_biases", Mixed, "constant", form, bias="mixed", conv=1, gone=("MatMul", "Mul", "Reshape"))


# Involution (arXiv 2103.06255)


class Involution(nn.Module):
    """One kernel for each pixel and group. The neighbours come by nn.Unfold, by shifted slices or by one Gather (im2col)."""

    def __init__(self, k, stride, group_channels, form, c=16, size=None):
        super().__init__()
        self.k, self.stride, self.gc, self.groups, self.form = k, stride, group_channels, c // group_channels, form
        self.pool = nn.AvgPool2d(stride, stride) if stride > 1 else nn.Identity()
        self.reduce, self.span = conv_bn(c, c // 2, act=True), nn.Conv2d(c // 2, k * k * self.groups, 1)

    def neighbours(self, x, h, w):
        b, c = x.shape[:2]
        k, s = self.k, self.stride
        if self.form == "unfold":
            return F.unfold(x, k, padding=k // 2, stride=s).view(b, self.groups, self.gc, k * k, h, w)
        p = F.pad(x, [k // 2] * 4)
        if self.form == "slices":
            taps = [p[:, :, i : i + (h - 1) * s + 1 : s, j : j + (w - 1) * s + 1 : s] for i in range(k) for j in range(k)]
            return torch.stack(taps, 2).view(b, self.groups, self.gc, k * k, h, w)
        t, i, j = torch.arange(k * k).view(-1, 1, 1), torch.arange(h).view(-1, 1), torch.arange(w)
        index = (i * s + t // k) * p.shape[3] + j * s + t % k
        return torch.index_select(p.flatten(2), 2, index.flatten()).view(b, self.groups, self.gc, k * k, h, w)

    def forward(self, x):
        kernel = self.span(self.reduce(self.pool(x)))
        b, _, h, w = kernel.shape
        kernel = kernel.view(b, self.groups, 1, self.k**2, h, w)
        return (kernel * self.neighbours(x, h, w)).sum(3).view(b, -1, h, w)


for form in ("unfold", "slices", "im2col"):
    for k in (3, 5, 7):
        for stride in (1, 2):
            for gc in (4, 16):
                # im2col computes its indices of a fixed size
                some = dict(dynamic=("n",)) if form == "im2col" else {}
                some |= dict(sizes=EVEN) if stride > 1 else {}
                add(f"involution_{form}_k{k}_s{stride}_g{gc}", Involution, k, stride, gc, form, want={"Involution": 1}, **some)


# Ghost module (arXiv 1911.11907), SCConv (CVPR 2020)


class Ghost(nn.Module):
    def __init__(self, cin, cout, ratio=2, k=1, cheap=3, stride=1, act=True):
        super().__init__()
        self.cout, first = cout, -(-cout // ratio)
        self.primary = conv_bn(cin, first, k, stride, act=act)
        self.cheap = conv_bn(first, first * (ratio - 1), cheap, groups=first, act=act)

    def forward(self, x):
        p = self.primary(x)
        return torch.cat([p, self.cheap(p)], 1)[:, : self.cout]


for ratio, cout in ((2, 32), (2, 31), (3, 24), (3, 32), (4, 30)):
    add(f"ghost_r{ratio}_o{cout}", Ghost, 16, cout, ratio, want={"GhostModule": 1}, conv=0)
add("ghost_linear", Ghost, 16, 32, act=False, want={"GhostModule": 1}, conv=0)
add("ghost_k3_s2", Ghost, 16, 32, k=3, stride=2, want={"GhostModule": 1}, conv=0)
add("ghost_cheap5", Ghost, 16, 27, cheap=5, want={"GhostModule": 1}, conv=0)


class SCConv(nn.Module):
    def __init__(self, c=16, r=4, stride=1, groups=1):
        super().__init__()
        self.k2 = nn.Sequential(nn.AvgPool2d(r, r), conv_bn(c, c, 3, groups=groups))
        self.k3, self.k4 = conv_bn(c, c, 3, groups=groups), conv_bn(c, c, 3, stride, groups)

    def forward(self, x):
        gate = torch.sigmoid(x + F.interpolate(self.k2(x), x.shape[2:]))
        return self.k4(self.k3(x) * gate)


for r in (2, 4):
    add(f"scconv_r{r}", SCConv, r=r, want={"SCConv": 1}, conv=0)
    add(f"scconv_r{r}_s2", SCConv, r=r, stride=2, want={"SCConv": 1}, conv=0)
add("scconv_grouped", SCConv, groups=2, want={"SCConv": 1}, conv=0)


# ResNeSt's split attention (arXiv 2004.08955)


class SplitAttention(nn.Module):
    """order kr: the excitation's channels are [K, R, C/K], as in the paper; rk: [R, C], the two 1x1 without groups;
    cardinal: the radix convolution's channels are [K, R, C/K] too. form split: slices and a sum; stack: one axis more."""

    def __init__(self, radix, cardinality, order="kr", form="split", c=16):
        super().__init__()
        self.radix, self.cardinality, self.order, self.form = radix, cardinality, order, form
        groups, mid = 1 if order == "rk" else cardinality, 8
        self.conv = conv_bn(c, c * radix, 3, groups=radix * cardinality if c % (radix * cardinality) == 0 else 1, act=True)
        self.fc1 = nn.Sequential(nn.Conv2d(c, mid, 1, groups=groups), nn.BatchNorm2d(mid), nn.ReLU())
        self.fc2 = nn.Conv2d(mid, c * radix, 1, groups=groups)

    def attention(self, s):
        """[N, R, C], or [N, K, R, C/K] in cardinal order"""
        b, c = s.shape[:2]
        a = self.fc2(self.fc1(F.adaptive_avg_pool2d(s, 1)))
        if self.radix == 1:
            return torch.sigmoid(a).view(b, 1, c)
        if self.order == "rk":
            return F.softmax(a.view(b, self.radix, c), 1)
        a = F.softmax(a.view(b, self.cardinality, self.radix, -1), 2)
        return a if self.order == "cardinal" else a.transpose(1, 2).reshape(b, self.radix, c)

    def forward(self, x):
        u = self.conv(x)
        b, rc, h, w = u.shape
        if self.order == "cardinal":
            u = u.view(b, self.cardinality, self.radix, -1, h, w)
            a = self.attention(u.sum(2).view(b, rc // self.radix, h, w))
            return (a[..., None, None] * u).sum(2).view(b, rc // self.radix, h, w)
        if self.form == "stack":
            u = u.view(b, self.radix, rc // self.radix, h, w)
            return (self.attention(u.sum(1))[..., None, None] * u).sum(1)
        parts = torch.split(u, rc // self.radix, 1)
        a = self.attention(sum(parts))
        return sum(a[:, r, :, None, None] * p for r, p in enumerate(parts))


for radix in (1, 2, 3, 4):
    for cardinality in (1, 2):
        # radix 1 is a squeeze-and-excite gate, whose reshapes vanish
        some = dict(want={"SplitAttention": 1}, conv=0) if radix > 1 else dict(conv=3, gone=("Reshape", "Softmax", "Split", "Transpose", "ReduceSum"))
        for order in ("kr", "rk"):
            for form in ("split", "stack") if radix in (2, 3) else ("split",):
                add(f"split_r{radix}_k{cardinality}_{order}" + ("_stack" if form == "stack" else ""), SplitAttention, radix, cardinality, order, form, **some)
add("split_r2_k2_cardinal", SplitAttention, 2, 2, "cardinal", want={"SplitAttention": 1}, conv=0)


# Families that merge into one convolution: ACNet (arXiv 1908.03930), Diverse Branch Block (arXiv 2103.13425),
# RepVGG (arXiv 2101.03697), MobileOne (arXiv 2206.04040), DO-Conv (arXiv 2006.12030), chains


class Branches(nn.Module):
    """A sum of branches, Relu."""

    def __init__(self, *branches):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x):
        return F.relu(sum(b(x) for b in self.branches))


def acnet(c, cout, stride=1, groups=1):
    branch = lambda k, p: nn.Sequential(nn.Conv2d(c, cout, k, stride, p, groups=groups, bias=False), nn.BatchNorm2d(cout))
    return Branches(branch((3, 3), (1, 1)), branch((3, 1), (1, 0)), branch((1, 3), (0, 1)))


def repvgg(c, cout, stride=1, groups=1):
    identity = [nn.BatchNorm2d(c)] if c == cout and stride == 1 else []
    return Branches(conv_bn(c, cout, 3, stride, groups), conv_bn(c, cout, 1, stride, groups), *identity)


def mobileone(c, cout, k, groups=1, stride=1, branches=4):
    identity = [nn.BatchNorm2d(c)] if c == cout and stride == 1 else []
    scale = [conv_bn(c, cout, 1, stride, groups)] if k > 1 else []
    return Branches(*(conv_bn(c, cout, k, stride, groups) for _ in range(branches)), *scale, *identity)


def dbb(c, cout, stride=1, groups=1):
    """Four branches; the border of what the first 1x1 makes is that of a padded map, so all are one kernel."""
    inner = lambda: conv_bn(c, c if groups == 1 else cout, 1, groups=groups, pad=1)
    mid = c if groups == 1 else cout
    return Branches(
        conv_bn(c, cout, 3, stride, groups),
        conv_bn(c, cout, 1, stride, groups),
        nn.Sequential(inner(), *conv_bn(mid, cout, 3, stride, groups, pad=0)),
        nn.Sequential(conv_bn(c, cout, 1, groups=groups, pad=1), nn.AvgPool2d(3, stride), nn.BatchNorm2d(cout)),
    )


class DOConv(nn.Module):
    """Composed on the kernels; `mul` is the paper's D_mul."""

    def __init__(self, c, cout, k=3, stride=1, groups=1, mul=None, bias=False):
        super().__init__()
        self.stride, self.groups, self.k = stride, groups, k
        self.mul = mul or k * k
        self.shape = (cout, c // groups, k, k)
        self.W = nn.Parameter(torch.randn(cout, c // groups, self.mul) * 0.2)
        self.D = nn.Parameter(torch.randn(c, k * k, self.mul) * 0.1)
        self.register_buffer("diagonal", torch.eye(k * k, self.mul).repeat(c, 1, 1))
        self.bias = nn.Parameter(torch.randn(cout) * 0.1) if bias else None

    def forward(self, x):
        w = self.W.reshape(self.shape[0] // self.groups, -1, self.mul)
        kernel = torch.einsum("ims,ois->oim", self.D + self.diagonal, w).reshape(self.shape)
        return F.conv2d(x, kernel, self.bias, self.stride, self.k // 2, 1, self.groups)


def chain(*convs):
    return nn.Sequential(*(nn.Conv2d(i, o, k, s, p, groups=g, bias=b) for i, o, k, s, p, g, b in convs))


for name, groups, stride, cout in (("", 1, 1, 16), ("_s2", 1, 2, 24), ("_g4", 4, 1, 16), ("_g2_s2", 2, 2, 32), ("_depthwise", 16, 1, 16)):
    for family in (acnet, repvgg, dbb):
        add(f"{family.__name__}{name}", family, 16, cout, stride, groups, conv=1, gone=("Add", "AveragePool", "Pad"))
    add(f"doconv{name or '_plain'}", DOConv, 16, cout, 3, stride, groups, conv=1, gone=("Einsum", "Reshape"))
add("doconv_mul12_bias", DOConv, 16, 24, mul=12, bias=True, conv=1, gone=("Einsum", "Reshape"))
add("mobileone_depthwise", mobileone, 16, 16, 3, 16, conv=1, gone=("Add",))
add("mobileone_depthwise_s2", mobileone, 16, 16, 3, 16, 2, conv=1, gone=("Add",))
add("mobileone_pointwise", mobileone, 16, 24, 1, conv=1, gone=("Add",))
add("mobileone_grouped", mobileone, 16, 16, 3, 4, conv=1, gone=("Add",))
add("doconv_feature_plain", chain, (16, 144, 3, 1, 1, 16, False), (144, 16, 1, 1, 0, 1, True), conv=1)
add("doconv_feature_g4", chain, (16, 144, 3, 1, 1, 16, False), (144, 16, 1, 1, 0, 4, True), conv=1)
add("expand", chain, (16, 64, 1, 1, 0, 1, False), (64, 64, 3, 2, 1, 1, True), (64, 24, 1, 1, 0, 1, True), conv=1)
add("chain_grouped", chain, (16, 32, 1, 1, 0, 4, True), (32, 16, 3, 1, 0, 4, True), (16, 16, 1, 1, 0, 4, True), conv=1)
# left alone: the bias of the 1x1 does not reach the zeros of the padding
add("chain_biased_border", chain, (16, 16, 1, 1, 0, 1, True), (16, 16, 3, 1, 1, 1, True), conv=2)
add("chain_biased_border_bn", lambda: nn.Sequential(conv_bn(16, 16), conv_bn(16, 16, 3)), conv=2)
# left alone: what lies beyond the map's edge is not what the second convolution sees there
add("chain_padded_twice", chain, (16, 16, 3, 1, 1, 1, False), (16, 16, 3, 1, 1, 1, False), conv=2)


def main() -> None:
    for name in sys.argv[1:] or BLOCKS:
        torch.manual_seed(0)
        block = BLOCKS[name]
        module = block.make().eval()
        for batch, size in zip(block.batches, block.sizes):
            x = torch.randn(batch, block.channels, *size)
            with torch.no_grad():
                print(f"{name}: {list(x.shape)} -> {list(module(x).shape)}")
        if sys.argv[1:]:
            print(block)


if __name__ == "__main__":
    main()
