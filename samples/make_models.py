"""Writes the small models of samples/models and samples/systems, with seeded random weights.

usage: python make_models.py [OUT_DIR] [NAME ...]        OUT_DIR stands for samples, the default
needs: pip install torch onnx onnxscript (the committed files come from torch 2.15 and onnx 1.23)

Each network is a stem, a few blocks of one kind at 8 to 16 channels, and what follows them in practice. NAME.onnx is written by
`torch.onnx.export(dynamo=False)`, NAME_dy.onnx by `dynamo=True`; a free batch or free sizes are in the name (_n, _nhw). Those of
samples/systems are single blocks of tests/networks/blocks.py, in the form that SYSTEMS names: b3 is a batch of three.
"""
import argparse
import os
import sys

import onnx
import torch
import torch.nn as nn
import torch.nn.functional as F


def bn(c):
    """A normalisation whose statistics are not the trivial ones."""
    layer = nn.BatchNorm2d(c)
    for t, low, high in ((layer.weight, 0.5, 1.5), (layer.bias, -0.2, 0.2), (layer.running_mean, -0.2, 0.2), (layer.running_var, 0.5, 1.5)):
        nn.init.uniform_(t, low, high)
    return layer


def conv_bn(cin, cout, k=1, stride=1, groups=1):
    return nn.Sequential(nn.Conv2d(cin, cout, k, stride, k // 2, groups=groups, bias=False), bn(cout))


class Branches(nn.Module):
    """Parallel convolutions of one input and, where shapes allow, the input itself, each normalised, summed, Relu."""

    def __init__(self, cin, cout, kernels, stride=1, groups=1):
        super().__init__()
        self.convs = nn.ModuleList(conv_bn(cin, cout, k, stride, groups) for k in kernels)
        self.identity = bn(cin) if cin == cout and stride == 1 else None

    def forward(self, x):
        y = sum(c(x) for c in self.convs)
        return F.relu(y if self.identity is None else y + self.identity(x))


class DOConv(nn.Module):
    """Depthwise over-parameterised convolution, composed on the kernels."""

    def __init__(self, cin, cout, k=3, stride=1):
        super().__init__()
        self.k, self.stride, self.cin, self.cout = k, stride, cin, cout
        self.w = nn.Parameter(torch.randn(cout, cin, k * k) * 0.2)
        self.d = nn.Parameter(torch.randn(cin, k * k, k * k) * 0.1)
        self.register_buffer("eye", torch.eye(k * k).repeat(cin, 1, 1))

    def forward(self, x):
        kernel = torch.einsum("ims,ois->oim", self.d + self.eye, self.w).reshape(self.cout, self.cin, self.k, self.k)
        return F.conv2d(x, kernel, None, self.stride, self.k // 2)


class DOFeature(nn.Module):
    """The same composed on the features: a depthwise convolution that multiplies channels, then 1x1."""

    def __init__(self, cin, cout, k=3):
        super().__init__()
        self.depthwise = nn.Conv2d(cin, cin * k * k, k, 1, k // 2, groups=cin, bias=False)
        self.pointwise = nn.Conv2d(cin * k * k, cout, 1, bias=False)

    def forward(self, x):
        return self.pointwise(self.depthwise(x))


class Experts(nn.Module):
    """A convolution whose kernel is mixed per example: by sigmoids (CondConv) or a softmax with temperature (DynamicConv)."""

    def __init__(self, cin, cout, softmax, k=3, experts=4):
        super().__init__()
        self.k, self.cout, self.softmax = k, cout, softmax
        self.route = nn.Linear(cin, experts)
        self.kernels = nn.Parameter(torch.randn(experts, cout * cin * k * k) * 0.2)
        self.biases = nn.Parameter(torch.randn(experts, cout) * 0.1) if softmax else None

    def forward(self, x):
        b, c, h, w = x.shape
        r = self.route(F.adaptive_avg_pool2d(x, 1).flatten(1))
        r = F.softmax(r / 4.0, 1) if self.softmax else torch.sigmoid(r)
        kernels = torch.mm(r, self.kernels).view(b * self.cout, c, self.k, self.k)
        biases = torch.mm(r, self.biases).view(-1) if self.softmax else None
        y = F.conv2d(x.reshape(1, b * c, h, w), kernels, biases, 1, self.k // 2, 1, b)
        return y.view(b, self.cout, h, w)


class Ghost(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.cout, half = cout, -(-cout // 2)
        self.primary = nn.Sequential(conv_bn(cin, half), nn.ReLU())
        self.cheap = nn.Sequential(conv_bn(half, half, 3, groups=half), nn.ReLU())

    def forward(self, x):
        p = self.primary(x)
        return torch.cat([p, self.cheap(p)], 1)[:, : self.cout]


class SelfCalibrated(nn.Module):
    """SCConv, the calibrated path."""

    def __init__(self, c, r=2):
        super().__init__()
        self.pool = nn.Sequential(nn.AvgPool2d(r, r), conv_bn(c, c, 3))
        self.conv, self.out = conv_bn(c, c, 3), conv_bn(c, c, 3)

    def forward(self, x):
        gate = torch.sigmoid(x + F.interpolate(self.pool(x), x.shape[2:]))
        return self.out(self.conv(x) * gate)


class SplitAttention(nn.Module):
    def __init__(self, c, radix=2, mid=8):
        super().__init__()
        self.radix = radix
        self.conv = nn.Sequential(conv_bn(c, c * radix, 3, groups=radix), nn.ReLU())
        self.fc1, self.fc2 = nn.Sequential(nn.Conv2d(c, mid, 1), bn(mid), nn.ReLU()), nn.Conv2d(mid, c * radix, 1)

    def forward(self, x):
        u = self.conv(x)
        b, rc = u.shape[:2]
        parts = torch.split(u, rc // self.radix, 1)
        a = self.fc2(self.fc1(F.adaptive_avg_pool2d(sum(parts), 1)))
        a = F.softmax(a.view(b, 1, self.radix, -1).transpose(1, 2), 1).reshape(b, -1, 1, 1)
        return sum(w * p for w, p in zip(torch.split(a, rc // self.radix, 1), parts))


class Involution(nn.Module):
    def __init__(self, c, k=3, groups=2):
        super().__init__()
        self.c, self.k, self.groups = c, k, groups
        self.reduce, self.span = nn.Sequential(conv_bn(c, c // 2), nn.ReLU()), nn.Conv2d(c // 2, k * k * groups, 1)
        self.unfold = nn.Unfold(k, 1, k // 2, 1)

    def forward(self, x):
        w = self.span(self.reduce(x))
        b, _, h, ww = w.shape
        w = w.view(b, self.groups, self.k**2, h, ww).unsqueeze(2)
        u = self.unfold(x).view(b, self.groups, self.c // self.groups, self.k**2, h, ww)
        return (w * u).sum(3).view(b, self.c, h, ww)


class Residual(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return F.relu(self.body(x) + x)


def net(*blocks, c=16):
    stem = nn.Sequential(conv_bn(3, c, 3, 2), nn.ReLU())
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 10))


def block(body, c=16):
    return nn.Sequential(body, bn(c), nn.ReLU())


def chain():
    """Convolutions that fold into one, a Relu, and a pair that must not fold: the bias of its 1x1 does not reach the zeros of the padded 3x3."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 1, bias=False), nn.Conv2d(8, 12, 3, padding=1), nn.Conv2d(12, 8, 1), nn.ReLU(),
        nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1),
    )


def mobileone(c=16):
    depthwise = lambda: Branches(c, c, (3, 3, 1), groups=c)
    pointwise = lambda: Branches(c, c, (1, 1))
    return net(depthwise(), pointwise(), depthwise(), pointwise())


# name: (network, height and width, free axes, exporters)
MODELS = {
    "convnet": (lambda: net(block(nn.Conv2d(16, 16, 3, padding=1)), nn.MaxPool2d(2), Residual(conv_bn(16, 16, 3))), 32, "", "ts dynamo"),
    "convnet_nhw": (lambda: net(block(nn.Conv2d(16, 16, 3, padding=1)), nn.MaxPool2d(2), Residual(conv_bn(16, 16, 3))), 32, "nhw", "ts dynamo"),
    "repvgg": (lambda: net(*(Branches(16, 16, (3, 1)) for _ in range(3))), 32, "", "ts dynamo"),
    "repvgg_nhw": (lambda: net(*(Branches(16, 16, (3, 1)) for _ in range(3))), 32, "nhw", "ts"),
    "mobileone": (mobileone, 32, "", "ts dynamo"),
    "chain": (chain, 14, "", "ts dynamo"),
    "doconv": (lambda: net(block(DOConv(16, 16)), block(DOConv(16, 16))), 32, "", "ts dynamo"),
    "doconv_feature": (lambda: net(block(DOFeature(16, 16)), block(DOFeature(16, 16))), 32, "", "ts dynamo"),
    "condconv": (lambda: net(block(Experts(16, 16, False))), 28, "", "ts dynamo"),
    "dynamicconv": (lambda: net(block(Experts(16, 16, True))), 28, "", "ts dynamo"),
    "ghost": (lambda: net(Ghost(16, 24), Ghost(24, 16)), 32, "", "ts dynamo"),
    "ghost_n": (lambda: net(Ghost(16, 24), Ghost(24, 16)), 32, "n", "ts"),
    "scconv": (lambda: net(Residual(SelfCalibrated(16))), 32, "", "ts dynamo"),
    "split_attention": (lambda: net(Residual(SplitAttention(16))), 28, "", "ts dynamo"),
    "involution": (lambda: net(block(Involution(16))), 28, "", "ts dynamo"),
}
AXES = {"": {}, "n": {0: "N"}, "nhw": {0: "N", 2: "H", 3: "W"}}

# block: forms, written by both exporters where they can
SYSTEMS = {
    "condconv_group": "b1 b3", "condconv_group_depthwise": "b2", "condconv_group_1x1": "b3", "condconv_group_grouped": "b2",
    "condconv_group_biases": "b3", "condconv_group_linear": "b3", "condconv_unroll": "b2", "condconv_sum": "b3 nhw",
    "condconv_sum_single": "b2", "dynconv_group": "b1 b3", "dynconv_group_two": "b2", "dynconv_unroll": "b2", "dynconv_sum": "n",
    "dynconv_group_single": "b2", "constant_routes_group": "b2", "constant_routes_sum_biases": "nhw",
    "involution_unfold_k3_s1_g4": "b1 nhw", "involution_unfold_k7_s2_g16": "b2", "involution_slices_k3_s2_g4": "b1",
    "involution_slices_k3_s1_g16": "nhw", "involution_im2col_k3_s1_g4": "b2",
    "ghost_r2_o31": "b2 nhw", "ghost_r3_o32": "b1", "ghost_linear": "b1", "scconv_r4": "b2 nhw", "scconv_r2_s2": "b1",
    "split_r1_k1_kr": "b1", "split_r2_k1_kr": "b1", "split_r2_k2_kr": "b2 nhw", "split_r3_k2_kr_stack": "b1", "split_r4_k1_rk": "b3",
    "split_r2_k2_cardinal": "b1",
    "acnet_g2_s2": "b2", "dbb": "b1", "dbb_g4": "b1", "repvgg_g4": "nhw", "mobileone_depthwise": "b1", "doconv_g2_s2": "b1",
    "doconv_feature_g4": "b1", "expand": "b1", "chain_grouped": "b1", "chain_biased_border": "b1", "chain_padded_twice": "b1",
}


def block_of(name):
    """A block of tests/networks/blocks.py with statistics that are not the trivial ones."""
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "networks"))
    from blocks import BLOCKS

    module = BLOCKS[name].make()
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.load_state_dict(bn(m.num_features).state_dict())
    return module


def write(path, make, shape, free, exporter):
    """Exports one model, without what the exporter notes of this machine."""
    torch.manual_seed(0)
    module, x = make().eval(), torch.randn(*shape)
    names = {"input_names": ["x"], "output_names": ["y"]}
    if exporter == "dynamo":
        shapes = (dict(AXES[free]),) if free else None
        proto = torch.onnx.export(module, (x,), opset_version=18, dynamo=True, dynamic_shapes=shapes, **names).model_proto
        # file names and stack traces
        for holder in [proto, proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output]:
            del holder.metadata_props[:]
        for node in proto.graph.node:
            node.doc_string = ""
    else:
        axes = {"x": AXES[free]} if free else None
        torch.onnx.export(module, (x,), path, opset_version=17, dynamo=False, dynamic_axes=axes, do_constant_folding=False, **names)
        proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)
    print(f"{path}: {len(proto.graph.node)} nodes, {os.path.getsize(path)} bytes")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out", nargs="?", default=os.path.dirname(os.path.abspath(__file__)))
    ap.add_argument("names", nargs="*", metavar="NAME")
    a = ap.parse_args()
    for folder in ("models", "systems"):
        os.makedirs(os.path.join(a.out, folder), exist_ok=True)
    for name in [n for n in a.names or MODELS if n in MODELS]:
        make, size, free, exporters = MODELS[name]
        for exporter in exporters.split():
            path = os.path.join(a.out, "models", name + ("_dy" if exporter == "dynamo" else "") + ".onnx")
            write(path, make, (1 if not free else 2, 3, size, size), free, exporter)
    for name in [n for n in a.names or SYSTEMS if n in SYSTEMS]:
        for form in SYSTEMS[name].split():
            for exporter in ("ts", "dynamo"):
                path = os.path.join(a.out, "systems", f"{name}_{form}" + ("_dy" if exporter == "dynamo" else "") + ".onnx")
                batch = int(form[1:]) if form[0] == "b" else 2
                write(path, lambda: block_of(name), (batch, 16, 14, 14), form if form in AXES else "", exporter)


if __name__ == "__main__":
    main()
