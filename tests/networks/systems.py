"""Hold convc's recognition of the convolution systems against real exports: one table, exit 1 if a bar is missed.

usage: python systems.py [--names PATTERN ..] [--variants NAME ..] [--forms PATTERN ..] [--jobs N] [--fast]
                         [--shared DIR] [--models DIR] [--convc PATH] [--failures FILE] [--table FILE] [--timing]
needs: pip install -r requirements.txt (beside this file)

The models are the blocks of blocks.py, the blocks and networks of shared/models/systems.py and four networks of export.py.
Each is exported into --models (once) in several forms: by TorchScript and by dynamo, batch 1 to 4 and symbolic, even and odd
sizes. Every file is then tried in the variants of variants.py: as exported, after onnxsim, after onnxslim, every name changed,
nodes and commutative operands in another order, and all of these at once. For each
  counts     `convc optimize --dialect convc`, which verifies: the operators of domain ai.convc are those that the model's row
             (BLOCKS in blocks.py, ROWS below) asks for, no more and no fewer; no BatchNormalization, except behind an Involution; Conv as the row says
  standard   `convc optimize`: accepted by onnx.checker, without ai.convc, within 1e-4 max|b| + 1e-3 |b| of what ONNX Runtime
             makes of the exported file, for symbolic axes at two sets of sizes; no more nodes than onnxslim leaves of the variant
and with --timing, which wants a quiet machine, instead of these
  timing     ONNX Runtime on the exported and the optimised file, 9 rounds of a second each in turn, medians: no model over 1.05
             times the original's time, some at most what FASTER says

A form is `EXPORTER-AXES[-HxW]`, such as ts-b1, dynamo-b2-57x43 or ts-nhw; names, forms and variants are chosen by patterns.
What an exporter cannot write is listed and does not fail. --fast is the subset that CI runs.
"""
from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import dataclasses
import fnmatch
import io
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import warnings
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from networks import EXPORT, ROOT, SYSTEMS, Row, agree, convc, operators, outputs, session
from variants import VARIANTS, vary

DOMAIN = "ai.convc"
MIXED = ("Einsum", "Reshape")

# An Involution has no weights of its own that could take in the BatchNormalization behind it.
BEHIND_INVOLUTION = {"rednet26": 8}

# What must become of the models of shared/models: operators of ai.convc, number of Conv beside them (None: any), what is gone.
ROWS: dict[str, tuple[dict[str, int], int | None, tuple[str, ...]]] = {
    "doconv": ({}, 1, MIXED),
    "doconv_feature": ({}, 1, ()),
    "condconv": ({"CondConv": 1}, 0, ()),
    "dynconv": ({"DynamicConv": 1}, None, ()),
    "ghost": ({"GhostModule": 1}, 0, ()),
    "ghost_bottleneck": ({"GhostModule": 2}, 0, ()),
    "scconv": ({"SCConv": 1}, 0, ()),
    "split_attention": ({"SplitAttention": 1}, 2, ()),
    "involution": ({"Involution": 1}, 2, ()),
    "doconv_resnet18": ({}, 20, ("Einsum",)),
    "dynconv_resnet18": ({"DynamicConv": 16}, None, ()),
    "scnet50": ({"SCConv": 16}, None, ()),
    "rednet26": ({"Involution": 8}, None, ()),
    "ghostnet": ({"GhostModule": 32}, None, ()),
    "resnest50": ({"SplitAttention": 16}, None, ()),
    "condconv_net": ({"CondConv": 24}, None, ()),
}
NETS = ("doconv_resnet18", "dynconv_resnet18", "scnet50", "rednet26", "ghostnet", "resnest50", "condconv_net")
BLOCK_FORMS = ("b1", "b3", "b2-57x43", "n", "nhw")
NET_FORMS = ("b1", "b3", "b2-225x193", "n", "nhw")
# rednet26 pools by two five times and adds what it pooled to what it strode over
SIZES = {"rednet26": "256x192"}

FASTER = {"repvgg_a0": 0.95, "mobileone_s0": 0.33, "involution": 0.35, "rednet26": 0.55}

# The subset of CI: patterns of names and forms, and how many variants of each.
FAST = [
    ("condconv|dynconv|involution|split_attention|scconv|ghost_bottleneck|doconv", "ts-b1|dynamo-b3", ("exported", "everything")),
    ("condconv_sum|dynconv_unroll|condconv_group_grouped|constant_routes_group|dynconv_sum_single", "*-b2-13x11|ts-n", ("everything",)),
    ("involution_slices_k3_s2_g4|involution_im2col_k3_s1_g16|involution_unfold_k5_s2_g4", "ts-b1|dynamo-b2*", ("exported",)),
    ("split_r4_k2_kr|split_r2_k2_rk_stack|split_r1_k1_kr|ghost_r3_o32|ghost_r2_o31|scconv_r4", "ts-nhw|dynamo-b2*", ("everything",)),
    ("dbb|acnet_g2_s2|mobileone_depthwise|repvgg_g4|chain*|expand|doconv_g4", "ts-b1|dynamo-nhw", ("everything",)),
]


@dataclass(frozen=True)
class Want:
    """What a model must become."""

    domain: dict[str, int]
    conv: int | None
    gone: tuple[str, ...]


@dataclass(frozen=True)
class Form:
    """How a model is exported."""

    exporter: str
    axes: str
    size: tuple[int, int] | None = None

    @property
    def label(self) -> str:
        return f"{self.exporter}-{self.axes}" + (f"-{self.size[0]}x{self.size[1]}" if self.size else "")

    @property
    def batch(self) -> int:
        return int(self.axes[1:]) if self.axes[0] == "b" else 1

    @property
    def suffix(self) -> str:
        """Of the file's name, as export.py makes it, and the size."""
        axes = "" if self.axes == "b1" else f"_{self.axes}" if self.axes[0] == "b" else f"_dyn{self.axes}"
        return axes + ("_dy" if self.exporter == "dynamo" else "") + (f"_{self.size[0]}x{self.size[1]}" if self.size else "")


@dataclass(frozen=True)
class Task:
    """One file and the variants of it to try."""

    name: str
    form: Form
    variants: tuple[str, ...]


@dataclass
class Result:
    """What came of a task: one row for each variant, or why there is no file."""

    task: Task
    rows: dict[str, Row] = field(default_factory=dict)
    refused: str = ""


def own_blocks():
    import blocks

    return blocks.BLOCKS


def names() -> list[str]:
    return [*ROWS, *own_blocks()]


def wanted(name: str) -> Want:
    if name in ROWS:
        return Want(*ROWS[name])
    block = own_blocks()[name]
    return Want(block.want, block.conv, block.gone)


def forms(name: str) -> list[Form]:
    """Every form of a model that is tried."""
    made = []
    for exporter in ("ts", "dynamo"):
        if name in ROWS:
            for text in NET_FORMS if name in NETS else BLOCK_FORMS:
                axes, _, size = text.partition("-")
                size = SIZES.get(name, size) if size else ""
                made.append(Form(exporter, axes, tuple(map(int, size.split("x"))) if size else None))
        else:
            block = own_blocks()[name]
            made += [Form(exporter, f"b{b}", size if b > 1 else None) for b, size in zip(block.batches, block.sizes)]
            made += [Form(exporter, axes) for axes in block.dynamic]
    return [f for f in made if name != "condconv_net" or f.exporter == "dynamo"]


def network(name: str, shared: Path):
    """The module and its input's channels, height and width."""
    import torch

    sys.path.insert(0, str(shared / "models"))
    import export
    import systems as made

    torch.manual_seed(0)
    if name in own_blocks():
        block = own_blocks()[name]
        return block.make(), (block.channels, *block.sizes[0])
    if name in made.BLOCKS:
        make, channels = made.BLOCKS[name]
        return make(), (channels, 56, 56)
    if name in made.NETS:
        return made.NETS[name](), (3, 224, 224)
    if name == "shufflenetv2":
        import torchvision

        return torchvision.models.shufflenet_v2_x1_0(weights=None), (3, 224, 224)
    import timm

    return timm.create_model(export.TIMM[name.removesuffix("_net")], pretrained=False, exportable=True), (3, 224, 224)


def exported(name: str, form: Form, args: argparse.Namespace) -> Path | str:
    """The file, written if it is missing; or why there is none."""
    # export.py leaves the exporter out of the name where it does not choose it
    suffix = (dataclasses.replace(form, exporter="ts") if name == "condconv_net" else form).suffix
    folder = args.models / "net" if name == "condconv_net" else args.models
    path = folder / f"{name.removesuffix('_net')}{suffix}.onnx"
    refusal = path.with_suffix(".refused")
    if path.exists():
        return path
    if refusal.exists():
        return refusal.read_text()
    warnings.filterwarnings("ignore")
    folder.mkdir(parents=True, exist_ok=True)
    said = io.StringIO()
    try:
        module, shape = network(name, args.shared)
        import export

        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            shape = (shape[0], *(form.size or shape[1:]))
            dynamic = form.axes if form.axes[0] != "b" else None
            export.export(module, str(path), (form.batch, *shape), dynamic, form.exporter)
    except Exception as e:
        path.unlink(missing_ok=True)
        why = f"{type(e).__name__}: {(str(e).splitlines() or [''])[0]}"[:160]
        refusal.write_text(why)
        return why
    return path


def feeds(name: str, form: Form, ports) -> list[list[np.ndarray]]:
    """One set of inputs, or two of different sizes if the model leaves axes open; in the order of the model's inputs."""
    rng = np.random.default_rng(7)
    if name in ROWS:
        first, second = ((224, 224), (250, 190)) if name in NETS else ((56, 56), (61, 44))
        second = (256, 192) if name == "rednet26" else second
    else:
        first, second = own_blocks()[name].sizes[:2]
    made = []
    for batch, size in ((1, first), (3, second)):
        shapes = [[s if isinstance(s, int) else [batch, 0, *size][axis] for axis, s in enumerate(p.shape)] for p in ports]
        if not made or shapes != [list(x.shape) for x in made[0]]:
            made.append([rng.standard_normal(s, dtype=np.float32) for s in shapes])
    return made


def slim_nodes(model: onnx.ModelProto) -> int | None:
    """How many nodes onnxslim leaves, `None` if it cannot."""
    try:
        return len(vary(model, "onnxslim", 0).graph.node)
    except Exception:
        return None


def named(session_, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    return dict(zip([p.name for p in session_.get_inputs()], arrays))


def by_place(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {str(i): v for i, v in enumerate(values.values())}


def count(row: Row, what: str, model: onnx.ModelProto, want: Want, normalisations: int) -> None:
    """Notes where the operators of a `--dialect convc` output are not those wanted."""
    found = collections.Counter(n.op_type for n in model.graph.node if n.domain == DOMAIN)
    others = collections.Counter(n.op_type for n in model.graph.node if n.domain != DOMAIN)
    row.cells[what] = ", ".join(f"{v} {k}" for k, v in found.items()) or f"{others['Conv']} Conv"
    if found != want.domain:
        row.fail(f"{dict(found) or 'nothing'} of {DOMAIN}, {want.domain or 'nothing'} is right")
    if want.conv is not None and others["Conv"] != want.conv:
        row.fail(f"{others['Conv']} Conv, {want.conv} is right")
    if others["BatchNormalization"] != normalisations:
        row.fail(f"{others['BatchNormalization']} BatchNormalization left, {normalisations} is right")
    if left := [f"{others[op]} {op}" for op in want.gone if others[op]]:
        row.fail(f"{', '.join(left)} left")


def examine(task: Task, args: argparse.Namespace) -> Result:
    """Exports and tries one file in all its variants."""
    result = Result(task)
    path = exported(task.name, task.form, args)
    if isinstance(path, str):
        result.refused = path
        return result
    try:
        original = session(path, 1)
        given = feeds(task.name, task.form, original.get_inputs())
        want = [by_place(outputs(original, named(original, g))) for g in given]
    except Exception as e:
        result.refused = f"the file does not run: {type(e).__name__}: {(str(e).splitlines() or [''])[0]}"[:160]
        return result
    for variant in task.variants:
        row = result.rows[variant] = Row(f"{task.name} {task.form.label} {variant}")
        start = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="systems-") as tmp:
            try:
                model = vary(onnx.load(str(path)), variant, zlib.crc32(path.name.encode()))
                slim = slim_nodes(onnx.ModelProto.FromString(model.SerializeToString()))
            except Exception as e:  # a simplifier's own fault
                row.cells["variant"] = f"none: {e}"
                continue
            try:
                examine_in(row, task.name, model, given, want, slim, args, Path(tmp))
            except Exception as e:
                row.fail(f"{type(e).__name__}: {e}")
        row.seconds = time.perf_counter() - start
    return result


def examine_in(row: Row, name: str, model, given, want, slim: int | None, args, tmp: Path) -> None:
    source, kept, ours = tmp / "model.onnx", tmp / "kept.onnx", tmp / "ours.onnx"
    onnx.save(model, str(source))
    if convc(row, args.convc, "optimize", source, "-o", kept, "--dialect", "convc") is not None:
        count(row, "counts", onnx.load(str(kept), load_external_data=False), wanted(name), BEHIND_INVOLUTION.get(name, 0))
    if convc(row, args.convc, "optimize", source, "-o", ours) is None:
        return
    onnx.checker.check_model(str(ours))
    standard = onnx.load(str(ours), load_external_data=False)
    if any(n.domain == DOMAIN for n in standard.graph.node):
        row.fail(f"standard ONNX holds operators of {DOMAIN}")
    total = operators(standard).total()
    row.cells["nodes"] = f"{total}/{slim}"
    if slim is not None and total > slim:
        row.fail(f"{total} nodes, onnxslim leaves {slim}")
    optimised = session(ours, 1)
    for g, w in zip(given, want):
        worst = agree(row, f"standard ONNX at {[list(x.shape) for x in g]}", by_place(outputs(optimised, named(optimised, g))), w)
        row.cells["difference"] = f"{worst:.3f}"


def rounds(sessions, given, seconds: float = 1.0, count: int = 9) -> list[float]:
    """The median time of a run of each session, measured in turn."""
    times: list[list[float]] = [[] for _ in sessions]
    for s, g in zip(sessions, given):
        s.run(None, g)
    for _ in range(count):
        for s, g, t in zip(sessions, given, times):
            start, runs = time.perf_counter(), 0
            while time.perf_counter() - start < seconds:
                s.run(None, g)
                runs += 1
            t.append((time.perf_counter() - start) / runs)
    return [statistics.median(t) for t in times]


def timing(args: argparse.Namespace) -> int:
    """The table of times in ONNX Runtime, original against optimised."""
    chosen = [n for n in dict.fromkeys([*EXPORT, *SYSTEMS]) if any(fnmatch.fnmatch(n, p) for p in args.names)]
    lines, missed = ["| model | original ms | optimised ms | ratio | allowed | verdict |", "|---|---|---|---|---|---|"], 0
    for name in chosen:
        row = Row(name)
        path = exported(name, Form("dynamo" if name == "condconv_net" else "ts", "b1"), args)
        with tempfile.TemporaryDirectory(prefix="systems-") as tmp:
            ours = Path(tmp) / "ours.onnx"
            if isinstance(path, str):
                row.fail(f"not exported: {path}")
            elif convc(row, args.convc, "optimize", path, "-o", ours) is not None:
                sessions = [session(path), session(ours)]
                shapes = [[s if isinstance(s, int) else 1 for s in p.shape] for p in sessions[0].get_inputs()]
                data = [np.random.default_rng(7).standard_normal(s, dtype=np.float32) for s in shapes]
                before, after = rounds(sessions, [named(s, data) for s in sessions])
                allowed = FASTER.get(name, 1.05)
                if after / before > allowed:
                    row.fail("too slow")
                row.cells = {"line": f"{before * 1e3:.2f} | {after * 1e3:.2f} | {after / before:.3f} | {allowed}"}
        missed += bool(row.failures)
        lines.append(f"| {name} | {row.cells.get('line', '| | |')} | {'; '.join(row.failures) or 'ok'} |")
        print(lines[-1], file=sys.stderr, flush=True)
        if args.table:
            args.table.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    print(f"systems: {len(chosen) - missed} of {len(chosen)} meet every bar")
    return 1 if missed or not chosen else 0


def matches(text: str, patterns) -> bool:
    return any(fnmatch.fnmatch(text, p) for group in patterns for p in group.split("|"))


def plan(args: argparse.Namespace) -> list[Task]:
    """What is to be tried."""
    if args.fast:
        return [Task(n, f, v) for ns, fs, v in FAST for n in names() if matches(n, [ns]) for f in forms(n) if matches(f.label, [fs])]
    chosen = tuple(v for v in VARIANTS if matches(v, args.variants))
    tasks = []
    for name in names():
        for form in forms(name) if matches(name, args.names) else []:
            if matches(form.label, args.forms):
                # the variants of a network's other forms say nothing new
                some = chosen if name not in NETS or form.axes == "b1" else tuple(v for v in chosen if v in ("exported", "everything"))
                tasks.append(Task(name, form, some))
    return tasks


def failures(results: list[Result]) -> list[str]:
    """What fails, the variants and forms of a model that fail alike in one line."""
    alike: dict[tuple[str, str], dict[str, list[str]]] = {}
    for r in results:
        for variant, row in r.rows.items():
            if row.failures:
                alike.setdefault((r.task.name, "; ".join(row.failures)), {}).setdefault(r.task.form.label, []).append(variant)
    return [f"{name}: {what}: " + ", ".join(f"{form} ({' '.join(vs)})" for form, vs in where.items()) for (name, what), where in alike.items()]


def table(results: list[Result]) -> str:
    """A line for each model: files, variants that pass, what was found in them, what fails first."""
    lines = ["| model | files | passed | found | nodes/onnxslim | worst difference | s | verdict |", "|---|" + "---|" * 7]
    for name in dict.fromkeys(r.task.name for r in results):
        mine = [r for r in results if r.task.name == name]
        rows = [row for r in mine for row in r.rows.values()]
        bad = [row for row in rows if row.failures]
        cell = lambda key: " or ".join(f"{v}" for v, _ in collections.Counter(r.cells[key] for r in rows if key in r.cells).most_common(3))
        worst = max((r.cells.get("difference", "") for r in rows), default="")
        verdict = (f"{bad[0].label.removeprefix(name)}: {bad[0].failures[0]}" if bad else "ok" if rows else "not exported").replace("|", "\\|")
        files = f"{sum(bool(r.rows) for r in mine)}/{len(mine)}"
        lines.append(f"| {name} | {files} | {len(rows) - len(bad)}/{len(rows)} | {cell('counts')} | {cell('nodes')} | {worst} | {sum(r.seconds for r in rows):.0f} | {verdict} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+", default=["*"], metavar="PATTERN")
    parser.add_argument("--variants", nargs="+", default=["*"], metavar="PATTERN")
    parser.add_argument("--forms", nargs="+", default=["*"], metavar="PATTERN")
    parser.add_argument("--fast", action="store_true", help="the subset of CI")
    parser.add_argument("--timing", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="folder with models/export.py")
    parser.add_argument("--models", type=Path, default=ROOT / "target" / "networks", help="folder of exported files")
    parser.add_argument("--convc", type=Path, default=ROOT / "target" / "debug" / "convc")
    parser.add_argument("--failures", type=Path, help="write every failure there")
    parser.add_argument("--table", type=Path, help="write the table there too")
    args = parser.parse_args()
    if args.timing:
        return timing(args)
    tasks = plan(args)
    results: list[Result] = []
    context = multiprocessing.get_context("forkserver")
    with concurrent.futures.ProcessPoolExecutor(args.jobs, mp_context=context) as pool:
        for future in concurrent.futures.as_completed([pool.submit(examine, t, args) for t in tasks]):
            result = future.result()
            results.append(result)
            for line in failures([result]):
                print(line, file=sys.stderr, flush=True)
    order = {n: i for i, n in enumerate(names())}
    results.sort(key=lambda r: (order[r.task.name], r.task.form.label))
    rows = [row for r in results for row in r.rows.values()]
    failed = [row for row in rows if row.failures]
    if args.failures:
        args.failures.write_text("".join(f"{line}\n" for line in failures(results)))
    if args.table:
        args.table.write_text(table(results))
    print(table(results))
    if refused := [f"{r.task.name} {r.task.form.label}: {r.refused}" for r in results if r.refused]:
        print("not exported:\n  " + "\n  ".join(refused))
    print(f"systems: {len(rows) - len(failed)} of {len(rows)} variants of {sum(bool(r.rows) for r in results)} files meet every bar")
    return 1 if failed or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
