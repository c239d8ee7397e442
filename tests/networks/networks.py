"""Hold convc against ONNX Runtime, onnx.checker and onnxslim on real networks: one table, exit 1 if a bar is missed.

usage: python networks.py [--names NAME ..] [--exporter ts dynamo] [--batch 1 3] [--dynamic static n nhw]
                          [--shared DIR] [--models DIR] [--convc PATH] [--run-only] [--timed] [--table FILE]
needs: pip install -r requirements.txt (beside this file)

Every network is exported (shared/models/export.py and systems.py; fetch_trained.sh for the trained ones) into --models, unless
it lies there already, and then
  run        `convc run` against ONNX Runtime: |a - b| <= 1e-4 max|b| + 1e-3 |b| for every element; where axes are symbolic, at
             two sets of sizes
  optimize   `convc optimize`, which verifies; the result passes onnx.checker, has no BatchNormalization that a convolution
             could take, and agrees with the original in ONNX Runtime within the same tolerance
  nodes      no more than onnxslim leaves, on the networks of export.py; a network that has more must run no slower in
             ONNX Runtime, both files timed in turn. Constant nodes count, since the files hold them
  counts     what the table COUNTS below asks of single networks
  timed      with --timed: `convc optimize --no-verify` takes at most 1 s on the networks of export.py

Names are those of export.py, systems.py and the trained files; condconv is the block of systems.py, condconv_net the network of
export.py. Combinations that an exporter cannot write are listed and do not fail.
"""
from __future__ import annotations

import argparse
import collections
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

ROOT = Path(__file__).resolve().parents[2]
ATOL_OF_MAX, RTOL = 1e-4, 1e-3
SEED = 7

EXPORT = ["resnet18", "resnet50", "mobilenetv2", "mobilenetv3", "ghostnet", "resnest50", "efficientnet_b0", "repvgg_a0",
          "mobileone_s0", "densenet121", "convnext_tiny", "condconv_net", "shufflenetv2"]
SYSTEMS = ["doconv", "doconv_feature", "condconv", "dynconv", "ghost", "ghost_bottleneck", "scconv", "split_attention",
           "involution", "doconv_resnet18", "dynconv_resnet18", "scnet50", "rednet26"]
# Trained models, and the sizes to run each at: the second set only where the model leaves axes open.
TRAINED = {
    "ch_PP-OCRv4_det_infer": [(1, 3, 640, 640), (2, 3, 320, 480)],
    "ch_PP-OCRv4_rec_infer": [(1, 3, 48, 320), (3, 3, 48, 200)],
    "ch_ppocr_mobile_v2.0_cls_infer": [(1, 3, 48, 192), (2, 3, 48, 192)],
    "320n": [(1, 3, 320, 320), (2, 3, 256, 384)],
    "open-nsfw": [(1, 224, 224, 3)],
}
# Networks whose size is a multiple of this only: rednet26 pools by two five times.
SECOND_SIZES = {"rednet26": (256, 192)}

# What must become of single networks: most nodes, exact number of Conv, operators that must be gone.
COUNTS = {
    "repvgg_a0": dict(nodes=48, conv=22, gone=("BatchNormalization", "Add")),
    "mobileone_s0": dict(nodes=92, conv=43, gone=("BatchNormalization", "Add")),
    "doconv": dict(conv=1, gone=("BatchNormalization", "Einsum", "Reshape")),
    "doconv_feature": dict(conv=1, gone=("BatchNormalization",)),
    "doconv_resnet18": dict(conv=20, gone=("BatchNormalization", "Einsum")),
}


@dataclass
class Case:
    """One model file."""

    name: str
    suffix: str
    path: Path

    @property
    def label(self) -> str:
        return self.name + self.suffix


@dataclass
class Row:
    """What came of one model."""

    label: str
    cells: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def fail(self, what: str) -> None:
        self.failures.append(" ".join(what.split()))


def export(name: str, batch: int, dynamic: str, exporter: str, models: Path, shared: Path | None) -> Case | str:
    """The model's file, written if it is missing; or why there is none."""
    script = "export.py" if name in EXPORT else "systems.py"
    folder = models / "net" if name == "condconv_net" else models
    plain = name.removesuffix("_net")
    suffix = f"_b{batch}" if batch > 1 else ""
    suffix += f"_dyn{dynamic}" if dynamic != "static" else ""
    suffix += "_dy" if exporter == "dynamo" else ""
    path = folder / f"{plain}{suffix}.onnx"
    if name == "condconv_net" and exporter != "dynamo":
        return "only the dynamo exporter writes it"
    if name == "condconv_net":  # export.py leaves the suffix out when it chooses the exporter itself
        path = folder / f"{plain}{suffix.removesuffix('_dy')}.onnx"
        exporter = "ts"
    if not path.exists():
        if shared is None:
            return f"{path.name} is not there"
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(shared / "models" / script), str(folder), plain, "--batch", str(batch), "--exporter", exporter]
        command += ["--dynamic", dynamic] if dynamic != "static" else []
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if not path.exists():
            said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            return said[-1][:160] if said else "the exporter wrote nothing"
    return Case(name, suffix, path)


def trained(name: str, models: Path, shared: Path | None) -> Case | str:
    """A trained model's file, fetched with all others if it is missing; or why there is none."""
    path = models / "trained" / f"{name}.onnx"
    if not path.exists():
        if shared is None:
            return f"{path.name} is not there"
        env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
        script = ["bash", str(shared / "models" / "fetch_trained.sh"), str(path.parent)]
        done = subprocess.run(script, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=env)
        if not path.exists():
            return f"fetch_trained.sh failed: {done.stderr.strip()[-160:]}"
    return Case(name, "", path)


def session(path: Path, threads: int = 2) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def writing(rng: np.random.Generator, shape: list[int]) -> np.ndarray:
    """Lines of made-up letters: trained models answer noise with values so near to 0 that only rounding is left of them."""
    last = shape[-1] == 3
    height, width = shape[1:3] if last else shape[2:4]
    page = np.ones((height, width), np.float32)
    for top in range(12, height - 24, 60):
        left = 10
        while left < width - 20:
            for _ in range(4):
                if rng.random() < 0.5:
                    j = left + rng.integers(0, 14)
                    page[top : top + 24, j : j + 3] = -1.0
                else:
                    i = top + rng.integers(0, 22)
                    page[i : i + 3, left : left + 16] = -1.0
            left += 22 if rng.random() < 0.85 else 50
    noise = 0.02 * rng.standard_normal(shape, dtype=np.float32)
    return (page[:, :, None] if last else page) + noise


def feeds(name: str, ort: onnxruntime.InferenceSession) -> list[dict[str, np.ndarray]]:
    """One set of inputs, or two of different sizes if the model leaves axes open."""
    rng = np.random.default_rng(SEED)
    made = []
    for second in (False, True):
        given, is_open = {}, False
        for port in ort.get_inputs():
            shape = []
            for axis, size in enumerate(port.shape):
                if isinstance(size, int) and size >= 0:
                    shape.append(size)
                    continue
                is_open = True
                if name in TRAINED:
                    sizes = TRAINED[name]
                    shape.append(sizes[min(int(second), len(sizes) - 1)][axis])
                elif axis == 0:
                    shape.append(3 if second else 1)
                else:
                    block = len(port.shape) == 4 and port.shape[1] not in (1, 3)
                    first, other = ((56, 56), (60, 44)) if block else ((224, 224), SECOND_SIZES.get(name, (250, 190)))
                    shape.append((other if second else first)[axis - 2])
            given[port.name] = writing(rng, shape) if name in TRAINED else rng.standard_normal(shape, dtype=np.float32)
        if second and not is_open:
            break
        made.append(given)
    return made


def excess(got: np.ndarray, want: np.ndarray) -> float | str:
    """How far `got` is from `want`, as a fraction of what is allowed; or why they cannot be compared."""
    if got.dtype != want.dtype or got.shape != want.shape:
        return f"{got.dtype}{list(got.shape)} instead of {want.dtype}{list(want.shape)}"
    if not want.size:
        return 0.0
    got, want = got.astype(np.float64), want.astype(np.float64)
    if not np.isfinite(got).all() or not np.isfinite(want).all():
        return "values that are not finite"
    allowed = ATOL_OF_MAX * np.abs(want).max() + RTOL * np.abs(want)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(got == want, 0.0, np.abs(got - want) / allowed)
    return float(ratio.max())


def agree(row: Row, what: str, got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> float:
    worst = 0.0
    if list(got) != list(want):
        row.fail(f"{what}: outputs {list(got)} instead of {list(want)}")
    for name in want.keys() & got.keys():
        e = excess(got[name], want[name])
        if isinstance(e, str) or e > 1.0:
            row.fail(f"{what}: output {name}: {e if isinstance(e, str) else f'{e:.3g} times the tolerance'}")
        worst = max(worst, e if isinstance(e, float) else float("inf"))
    return worst


def outputs(ort: onnxruntime.InferenceSession, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return dict(zip([o.name for o in ort.get_outputs()], ort.run(None, given)))


def convc(row: Row, *command: str | Path) -> float | None:
    """Runs convc; the seconds it took, or `None` after noting its failure."""
    start = time.perf_counter()
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["nothing on stderr"]
        first = next((line for line in said if line.startswith("error") or "panicked" in line), said[0])
        more = f" {said[said.index(first) + 1]}" if "panicked" in first and said.index(first) + 1 < len(said) else ""
        row.fail(f"convc {command[1]} exits {done.returncode}: {first}{more}"[:400])
        return None
    return time.perf_counter() - start


def operators(model: onnx.ModelProto) -> collections.Counter[str]:
    return collections.Counter(node.op_type for node in model.graph.node)


def lone_norms(model: onnx.ModelProto) -> list[str]:
    """BatchNormalization nodes that alone read a convolution with constant weights."""
    uses = collections.Counter(x for node in model.graph.node for x in node.input)
    uses.update(o.name for o in model.graph.output)
    fixed = {t.name for t in model.graph.initializer} | {o for n in model.graph.node if n.op_type == "Constant" for o in n.output}
    convs = {n.output[0] for n in model.graph.node if n.op_type == "Conv" and n.input[1] in fixed and uses[n.output[0]] == 1}
    return [n.name for n in model.graph.node if n.op_type == "BatchNormalization" and n.input[0] in convs]


def slim_copy(path: Path, folder: Path) -> onnx.ModelProto | None:
    import onnxslim

    target = folder / "slim.onnx"
    try:
        model = onnxslim.slim(onnx.load(str(path)))
        onnx.save(model, str(target))
        return model
    except Exception as e:  # whatever it trips over is its own
        print(f"{path.name}: onnxslim fails: {e}", file=sys.stderr)
        return None


def time_ratio(ours: Path, theirs: Path, given: dict[str, np.ndarray], rounds: int = 15) -> float:
    """Median time of `ours` over that of `theirs` in ONNX Runtime, run in turn."""
    sessions = [session(ours), session(theirs)]
    times: list[list[float]] = [[], []]
    for _ in range(rounds):
        for s, t in zip(sessions, times):
            start = time.perf_counter()
            s.run(None, given)
            t.append(time.perf_counter() - start)
    return statistics.median(times[0]) / statistics.median(times[1])


def examine(case: Case, args: argparse.Namespace) -> Row:
    row = Row(case.label)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="networks-") as tmp:
        try:
            examine_in(row, case, args, Path(tmp))
        except Exception as e:
            row.fail(f"{type(e).__name__}: {e}")
    row.seconds = time.perf_counter() - start
    return row


def examine_in(row: Row, case: Case, args: argparse.Namespace, tmp: Path) -> None:
    original = session(case.path)
    given = feeds(case.name, original)
    want = [outputs(original, g) for g in given]
    worst, seconds = 0.0, 0.0
    for k, (g, w) in enumerate(zip(given, want)):
        np.savez(tmp / f"in{k}.npz", **g)
        took = convc(row, args.convc, "run", case.path, "--inputs", tmp / f"in{k}.npz", "--output", tmp / "out.npz")
        if took is None:
            worst = float("inf")
            continue
        seconds = max(seconds, took)
        with np.load(tmp / "out.npz") as got:
            worst = max(worst, agree(row, f"run at {[list(x.shape) for x in g.values()]}", dict(got), w))
    row.cells |= {"run": f"{worst:.3f}", "run s": f"{seconds:.2f}", "sizes": str(len(given))}
    if args.run_only:
        return

    ours = tmp / "ours.onnx"
    took = convc(row, args.convc, "optimize", case.path, "-o", ours, "--inputs", tmp / "in0.npz")
    if took is None:
        return
    row.cells["optimize s"] = f"{took:.2f}"
    if args.timed and case.name in EXPORT:
        took = convc(row, args.convc, "optimize", case.path, "-o", tmp / "unverified.onnx", "--no-verify")
        if took is not None:
            row.cells["unverified s"] = f"{took:.2f}"
            if took > 1.0:
                row.fail(f"optimize --no-verify takes {took:.2f} s, 1 s is allowed")
    onnx.checker.check_model(str(ours))
    before, after = onnx.load(str(case.path), load_external_data=False), onnx.load(str(ours), load_external_data=False)
    a, b = operators(before), operators(after)
    row.cells |= {"nodes": f"{a.total()}", "convc": f"{b.total()}", "Conv": f"{a['Conv']}→{b['Conv']}"}
    row.cells["BN"] = f"{a['BatchNormalization']}→{b['BatchNormalization']}"
    if lone := lone_norms(after):
        row.fail(f"BatchNormalization left behind convolutions: {', '.join(lone[:3])}")
    bars = COUNTS.get(case.name, {})
    if b.total() > bars.get("nodes", b.total()):
        row.fail(f"{b.total()} nodes, {bars['nodes']} are allowed")
    if b["Conv"] != bars.get("conv", b["Conv"]):
        row.fail(f"{b['Conv']} Conv, {bars['conv']} are right")
    if left := [op for op in bars.get("gone", ()) if b[op]]:
        row.fail(f"{', '.join(left)} left")
    slim = slim_copy(case.path, tmp)
    row.cells["slim"] = str(len(slim.graph.node)) if slim else "-"
    if slim and case.name in EXPORT and b.total() > len(slim.graph.node):
        ratio = time_ratio(ours, tmp / "slim.onnx", given[0])
        row.cells["time/slim"] = f"{ratio:.2f}"
        if ratio > 1.02:
            row.fail(f"{b.total()} nodes, onnxslim leaves {len(slim.graph.node)}, and {ratio:.2f} times its time")
    optimised = session(ours)
    worst = 0.0
    for g, w in zip(given, want):
        worst = max(worst, agree(row, f"optimised at {[list(x.shape) for x in g.values()]}", outputs(optimised, g), w))
    row.cells["optimised"] = f"{worst:.3f}"


COLUMNS = ["run", "run s", "sizes", "nodes", "slim", "convc", "Conv", "BN", "optimised", "optimize s", "unverified s", "time/slim"]


def table(rows: list[Row]) -> str:
    columns = [c for c in COLUMNS if any(c in r.cells for r in rows)]
    lines = ["| network | " + " | ".join(columns) + " | verdict |", "|---|" + "---|" * (len(columns) + 1)]
    for r in sorted(rows, key=lambda r: (not r.failures, r.label)):
        verdict = "; ".join(r.failures).replace("|", "\\|") or "ok"
        lines.append(f"| {r.label} | " + " | ".join(r.cells.get(c, "") for c in columns) + f" | {verdict} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everything = [*EXPORT, *SYSTEMS, *TRAINED]
    parser.add_argument("--names", nargs="+", default=everything, choices=everything, metavar="NAME")
    parser.add_argument("--exporter", nargs="+", default=["ts"], choices=["ts", "dynamo"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1])
    parser.add_argument("--dynamic", nargs="+", default=["static"], choices=["static", "n", "nhw"])
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="folder with models/export.py")
    parser.add_argument("--models", type=Path, default=ROOT / "target" / "networks", help="folder of exported files")
    parser.add_argument("--convc", type=Path, default=ROOT / "target" / "debug" / "convc")
    parser.add_argument("--existing", action="store_true", help="export nothing: only what lies in --models")
    parser.add_argument("--run-only", action="store_true")
    parser.add_argument("--timed", action="store_true")
    parser.add_argument("--table", type=Path, help="write the table there too, after every network")
    args = parser.parse_args()
    rows: list[Row] = []
    missing: list[str] = []
    combinations = list(itertools.product(args.exporter, args.batch, args.dynamic))
    for name in args.names:
        for exporter, batch, dynamic in combinations if name not in TRAINED else [("ts", 1, "static")]:
            label = name if name in TRAINED else f"{name} {exporter} batch {batch} {dynamic}"
            if batch > 1 and dynamic != "static":
                continue
            shared = None if args.existing else args.shared
            case = trained(name, args.models, shared) if name in TRAINED else export(name, batch, dynamic, exporter, args.models, shared)
            if isinstance(case, str):
                missing.append(f"{label}: {case}")
                # One form of every network can be written.
                if name in TRAINED or (batch == 1 and dynamic == "static" and name != "condconv_net"):
                    rows.append(Row(label, failures=[f"not exported: {case}"]))
                continue
            row = examine(case, args)
            rows.append(row)
            print(f"{row.label}: {'; '.join(row.failures) or 'ok'} ({row.seconds:.1f} s)", file=sys.stderr, flush=True)
            if args.table:
                args.table.write_text(table(rows))
    print(table(rows))
    if missing:
        print("not exported:\n  " + "\n  ".join(missing))
    failed = sum(bool(r.failures) for r in rows)
    print(f"networks: {len(rows) - failed} of {len(rows)} meet every bar")
    return 1 if failed or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
