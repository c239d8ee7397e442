"""Hold convc against the fusion that the authors of re-parameterised networks wrote themselves: one table, exit 1 if a bar is missed.

usage: python reparam.py [--names NAME ..] [--exporter ts dynamo] [--models DIR] [--convc PATH] [--existing] [--table FILE] [--find]
needs: pip install -r requirements.txt (beside this file)

The networks are the smallest variant of every family of timm that `timm.utils.model.reparameterize_model` changes, and of four
families beside them that train with plain BatchNormalization. --find looks through timm for families that are missing here.
Weights are random, biases, BatchNormalization statistics and affine parameters too. Each network is exported
  as trained   every branch and every BatchNormalization in the file: TorchScript in eval mode with do_constant_folding=False and
               training=PRESERVE, dynamo with optimize=False
  as fused     after reparameterize_model, by the same exporter in its ordinary way
into --models (once). For each file as trained
  counts       nodes and Conv that convc leaves of it are at most those that convc leaves of the file as fused
  BN           no BatchNormalization stands next to a Conv, ConvTranspose, Gemm or MatMul that could take it exactly
  optimised    what convc makes of it agrees with the file as trained in ONNX Runtime, graph optimisations disabled in both, within
               1e-4 max|b| + 1e-3 |b|
What an exporter cannot write is listed and does not fail, as long as the other one can.
"""
from __future__ import annotations

import argparse
import collections
import inspect
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from networks import ROOT, SEED, Row, agree, convc, operators, outputs

# Families that reparameterize_model changes, then four that have nothing but BatchNormalization to fold.
BRANCHED = ["repvgg_a0", "mobileone_s0", "fastvit_t8", "fastvit_mci0", "repvit_m1", "repghostnet_050", "ghostnetv3_050", "lcnetv2_small",
            "iformer_t", "efficientvit_m0", "efficientvim_m1", "levit_128s", "levit_conv_128s", "shvit_s1", "tiny_vit_5m_224",
            "nextvit_small"]
PLAIN = ["hgnetv2_b0", "rdnet_tiny", "starnet_s050"]
SIZE = 224


def randomise(net, seed: int = 1):
    """Statistics and affine parameters of every BatchNormalization, scales of layers and biases, away from their initial values."""
    import torch

    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for m in net.modules():
            if isinstance(m, torch.nn.modules.batchnorm._BatchNorm):
                m.running_mean.copy_(torch.randn(m.running_mean.shape, generator=g) * 0.1)
                m.running_var.copy_(torch.rand(m.running_var.shape, generator=g) * 0.5 + 0.75)
                m.weight.copy_(torch.rand(m.weight.shape, generator=g) + 0.5)
                m.bias.copy_(torch.randn(m.bias.shape, generator=g) * 0.1)
        for name, p in net.named_parameters():
            if "gamma" in name or "layer_scale" in name:
                p.copy_(torch.rand(p.shape, generator=g) * 0.5 + 0.25)
            elif name.endswith("bias") and not p.any():
                # A bias of 0, as layers are made with, would be folded away, and a shift would have to bring it back.
                p.copy_(torch.randn(p.shape, generator=g) * 0.1)
    return net.eval()


def network(name: str, fused: bool):
    import timm
    import torch
    from timm.utils.model import reparameterize_model

    torch.manual_seed(0)
    net = randomise(timm.create_model(name, pretrained=False, exportable=True))
    return reparameterize_model(net) if fused else net


def export(name: str, form: str, models: Path, existing: bool) -> Path | str:
    """The network's file, written if it is missing, or why there is none. `form`: ts, dynamo, ts-fused or dynamo-fused."""
    path = models / f"{name}.{form}.onnx"
    if path.exists():
        return path
    if existing:
        return f"{path.name} is not there"
    import torch

    warnings.filterwarnings("ignore")
    x = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    how: dict = dict(input_names=["input"], output_names=["output"])
    exporter, _, fused = form.partition("-")
    if exporter == "dynamo":
        how |= dict(dynamo=True, optimize=bool(fused), opset_version=18, external_data=False, verbose=False)
    else:
        how |= dict(dynamo=False, opset_version=17)
        if not fused:
            how |= dict(do_constant_folding=False, training=torch.onnx.TrainingMode.PRESERVE)
    models.mkdir(parents=True, exist_ok=True)
    try:
        torch.onnx.export(network(name, bool(fused)), (x,), str(path), **how)
    except Exception as e:
        path.unlink(missing_ok=True)
        return f"{type(e).__name__}: {e}".splitlines()[0][:160]
    return path


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def left_over(model: onnx.ModelProto) -> list[str]:
    """BatchNormalization nodes that a neighbour with constant weights could take exactly.

    Before it: the only reader of a Conv, ConvTranspose, Gemm or MatMul. Behind it: every reader is such an operator, and none pads, or
    the shift is 0; a Flatten or Reshape that joins the channels with axes of size 1 lies between without harm.
    """
    model = onnx.shape_inference.infer_shapes(model)
    graph = model.graph
    fixed = {t.name for t in graph.initializer} | {o for n in graph.node if n.op_type == "Constant" for o in n.output}
    makers = {o: n for n in graph.node for o in n.output}
    readers = collections.defaultdict(list)
    for n in graph.node:
        for x in n.input:
            readers[x].append(n)
    wanted = {o.name for o in graph.output}
    linear = ("Conv", "ConvTranspose", "Gemm", "MatMul")

    def weighted(n: onnx.NodeProto) -> bool:
        return n.op_type in linear and n.input[1] in fixed

    def pads(n: onnx.NodeProto) -> bool:
        return any(any(a.ints) for a in n.attribute if a.name == "pads") or any(a.name == "auto_pad" and a.s not in (b"NOTSET", b"VALID") for a in n.attribute)

    def takes(n: onnx.NodeProto, value: str) -> bool:
        if n.op_type in ("Flatten", "Reshape", "Squeeze") and n.output[0] not in wanted:
            return all(r.op_type in ("Gemm", "MatMul") and takes(r, n.output[0]) for r in readers[n.output[0]])
        return weighted(n) and n.input[0] == value and n.op_type != "ConvTranspose" and not pads(n)

    found = []
    for n in graph.node:
        if n.op_type != "BatchNormalization":
            continue
        x, y = n.input[0], n.output[0]
        maker = makers.get(x)
        while maker is not None and maker.op_type in ("Reshape", "Flatten", "Squeeze") and len(readers[x]) == 1 and x not in wanted:
            # A product's columns are its last axis, and channels the second one: they are the same where the rows were joined.
            x = maker.input[0]
            maker = makers.get(x)
        before = maker is not None and weighted(maker) and len(readers[x]) == 1 and x not in wanted
        behind = y not in wanted and bool(readers[y]) and all(takes(r, y) for r in readers[y])
        if before or behind:
            found.append(n.name or y)
    return found


def optimised(row: Row, args: argparse.Namespace, path: Path, target: Path, given: Path) -> onnx.ModelProto | None:
    took = convc(row, args.convc, "optimize", path, "-o", target, "--inputs", given)
    if took is None:
        return None
    onnx.checker.check_model(str(target))
    return onnx.load(str(target))


def examine(name: str, form: str, path: Path, fused: Path, args: argparse.Namespace) -> Row:
    row = Row(f"{name} {form}")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="reparam-") as tmp:
        try:
            examine_in(row, path, fused, args, Path(tmp))
        except Exception as e:
            row.fail(f"{type(e).__name__}: {e}")
    row.seconds = time.perf_counter() - start
    return row


def examine_in(row: Row, path: Path, fused: Path, args: argparse.Namespace, tmp: Path) -> None:
    x = np.random.default_rng(SEED).standard_normal((1, 3, SIZE, SIZE), dtype=np.float32)
    np.savez(tmp / "in.npz", input=x)
    ours = optimised(row, args, path, tmp / "ours.onnx", tmp / "in.npz")
    theirs = optimised(row, args, fused, tmp / "fused.onnx", tmp / "in.npz")
    if ours is None or theirs is None:
        return
    trained, author, a, b = (operators(m) for m in (onnx.load(str(path)), onnx.load(str(fused)), ours, theirs))
    row.cells |= {"trained": f"{trained.total()}", "author": f"{author.total()}", "author, convc": f"{b.total()}", "convc": f"{a.total()}"}
    row.cells["Conv"] = f"{trained['Conv']}→{a['Conv']} ({b['Conv']})"
    row.cells["BN"] = f"{trained['BatchNormalization']}→{a['BatchNormalization']} ({b['BatchNormalization']})"
    for what, x_ours, x_theirs in (("nodes", a.total(), b.total()), ("Conv", a["Conv"], b["Conv"])):
        if x_ours > x_theirs:
            more = {op: n for op, n in (a - b).items()}
            row.fail(f"{x_ours} {what}, {x_theirs} of the author's fused export; more of {more}")
    if left := left_over(ours):
        row.fail(f"{len(left)} BatchNormalization that a neighbour could take: {', '.join(left[:3])}")
    if left := left_over(theirs):
        row.fail(f"of the author's fused export, {len(left)} BatchNormalization that a neighbour could take: {', '.join(left[:3])}")
    given = {"input": x}
    row.cells["optimised"] = f"{agree(row, 'optimised', outputs(session(tmp / 'ours.onnx'), given), outputs(session(path), given)):.3f}"


COLUMNS = ["trained", "author", "author, convc", "convc", "Conv", "BN", "optimised"]


def table(rows: list[Row]) -> str:
    lines = ["| network | " + " | ".join(COLUMNS) + " | verdict |", "|---|" + "---|" * (len(COLUMNS) + 1)]
    for r in sorted(rows, key=lambda r: (not r.failures, r.label)):
        verdict = "; ".join(r.failures).replace("|", "\\|") or "ok"
        lines.append(f"| {r.label} | " + " | ".join(r.cells.get(c, "") for c in COLUMNS) + f" | {verdict} |")
    return "\n".join(lines) + "\n"


def find() -> int:
    """Prints the smallest variant of each family that reparameterize_model changes; 1 if a family is not in BRANCHED."""
    import timm
    import torch

    ways = ("fuse", "reparameterize", "switch_to_deploy")
    missing = 0
    for module in timm.list_modules():
        source = inspect.getsource(sys.modules[f"timm.models.{module}"])
        if not any(f"def {way}(" in source for way in ways):
            continue
        found = []
        for name in timm.list_models(module=module):
            with torch.device("meta"):
                net = timm.create_model(name)
            if any(hasattr(m, way) for m in net.modules() for way in ways):
                found.append((sum(p.numel() for p in net.parameters()), name))
        known = [n for _, n in found if n in BRANCHED]
        missing += not known
        print(f"{module}: smallest {min(found)[1] if found else 'none'}, here {', '.join(known) or 'MISSING'}")
    return min(missing, 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everything = [*BRANCHED, *PLAIN]
    parser.add_argument("--names", nargs="+", default=everything, choices=everything, metavar="NAME")
    parser.add_argument("--exporter", nargs="+", default=["ts", "dynamo"], choices=["ts", "dynamo"])
    parser.add_argument("--models", type=Path, default=ROOT / "target" / "reparam", help="folder of exported files")
    parser.add_argument("--convc", type=Path, default=ROOT / "target" / "debug" / "convc")
    parser.add_argument("--existing", action="store_true", help="export nothing: only what lies in --models")
    parser.add_argument("--table", type=Path, help="write the table there too, after every network")
    parser.add_argument("--find", action="store_true", help="look through timm for families that are missing here")
    args = parser.parse_args()
    if args.find:
        return find()
    rows: list[Row] = []
    missing: list[str] = []
    for name in args.names:
        written = 0
        for form in args.exporter:
            fused = export(name, f"{form}-fused", args.models, args.existing)
            path = export(name, form, args.models, args.existing)
            if isinstance(fused, str) or isinstance(path, str):
                missing.append(f"{name} {form}: {fused if isinstance(fused, str) else path}")
                continue
            written += 1
            row = examine(name, form, path, fused, args)
            rows.append(row)
            print(f"{row.label}: {'; '.join(row.failures) or 'ok'} ({row.seconds:.1f} s)", file=sys.stderr, flush=True)
            if args.table:
                args.table.write_text(table(rows))
        if not written:
            rows.append(Row(name, failures=["not exported"]))
    print(table(rows))
    if missing:
        print("not exported:\n  " + "\n  ".join(missing))
    failed = sum(bool(r.failures) for r in rows)
    print(f"reparam: {len(rows) - failed} of {len(rows)} meet every bar")
    return 1 if failed or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
