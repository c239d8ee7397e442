"""One model, every way through convc, against ONNX Runtime with all its optimisations off, at sizes that convc did not see.

    run         `convc run`, which optimises in memory and verifies nothing
    optimize    `convc optimize`, which verifies; its file runs in ONNX Runtime, and its trace is replayed against both files
    no-verify   `convc optimize --no-verify`: its file too, unless it is the same bytes
    dialect     `convc optimize --dialect convc`: its file by `convc run`, its trace replayed

What is wrong is told by its kind (`Failure.kind`): number, unverified (exit 4), panic, timeout, invalid (onnx.checker, or ONNX
Runtime refuses what it took before), replay, refused (convc does not take or does not run what ONNX Runtime does).
"""
from __future__ import annotations

import json
import random
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

SECONDS = 180
RUNS = 3  # bindings that are compared
TYPES = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16, "tensor(int64)": np.int64, "tensor(int32)": np.int32,
    "tensor(int8)": np.int8, "tensor(uint8)": np.uint8, "tensor(bool)": np.bool_,
}
# relative to the largest element; a difference above it is held against what perturbed inputs and weights do. In f64 it leaves
# room for attributes, which are f32: HardSwish, as ONNX writes it out, multiplies by an f32 next to 1/6.
TOLERANCE = {np.dtype(np.float32): 1e-4, np.dtype(np.float64): 1e-7, np.dtype(np.float16): 2e-2}


KINDS = ("number", "unverified", "panic", "timeout", "invalid", "refused", "replay", "harness")  # the gravest first


@dataclass
class Failure:
    kind: str
    way: str
    text: str

    @property
    def gist(self) -> str:
        """The text without names and numbers."""
        return re.sub(r"[-+]?\d[\w.+-]*|/\S+|\[[^\]]*\]|\"[^\"]*\"|'[^']*'|\([^)]*\)", "_", self.text)[:110] if self.kind not in ("number", "timeout") else ""

    def __str__(self) -> str:
        return f"{self.kind} ({self.way}): {self.text}"


@dataclass
class Verdict:
    """What came of a model; the gravest failure first."""

    refused: str = ""  # why ONNX Runtime does not run the model
    failures: list[Failure] = field(default_factory=list)
    rules: dict[str, int] = field(default_factory=dict)
    runs: int = 0
    unsupported: str = ""  # an operator that `convc run` does not know: no failure


def session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def constants(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    found = list(graph.initializer)
    for node in graph.node:
        found += [a.t for a in node.attribute if a.type == onnx.AttributeProto.TENSOR]
        for a in node.attribute:
            if a.type == onnx.AttributeProto.GRAPH:
                found += constants(a.g)
    return found


class Probe:
    """Tells the bindings that docs/sizes.md leaves out, and those at which ONNX Runtime leaves what ONNX says.

    A window that does not fit into its padded map is an error for a convolution; a pool gives no window, or, in ONNX Runtime, one
    that hangs over. A Concat of tensors whose other sizes differ is none; ONNX Runtime skips empty operands.
    """

    def __init__(self, model: onnx.ModelProto):
        copy = onnx.ModelProto.FromString(model.SerializeToString())
        self.nodes = [n for n in copy.graph.node if n.op_type in ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "Concat")]
        known = {o.name for o in copy.graph.output} | {i.name for i in copy.graph.input} | {t.name for t in copy.graph.initializer}
        self.fixed = {t.name: tuple(t.dims) for t in copy.graph.initializer}
        made = {x for n in copy.graph.node for x in n.output}
        self.names = sorted(({x for n in self.nodes for x in [*n.input, *n.output] if x} & made) - known)
        copy.graph.output.extend(onnx.ValueInfoProto(name=x) for x in self.names)
        self.outputs = [o.name for o in copy.graph.output]
        self.session = session(copy.SerializeToString())

    def is_defined(self, given: dict[str, np.ndarray]) -> bool:
        values = self.session.run(None, given)
        shape = self.fixed | {k: v.shape for k, v in given.items()} | {k: v.shape for k, v in zip(self.outputs, values)}
        for node in self.nodes:
            a = {x.name: onnx.helper.get_attribute_value(x) for x in node.attribute}
            if node.op_type == "Concat":
                of = [shape[x] for x in node.input]
                axis = a["axis"] % len(of[0])
                if len({s[:axis] + s[axis + 1 :] for s in of}) > 1:
                    return False
            elif node.op_type != "ConvTranspose" and a.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID"):
                x, rank = shape[node.input[0]], len(shape[node.input[0]]) - 2
                kernel = a.get("kernel_shape") or shape[node.input[1]][2:]
                pads, dilations = a.get("pads") or [0] * 2 * rank, a.get("dilations") or [1] * rank
                for i in range(rank):
                    room = x[2 + i] + pads[i] + pads[rank + i] - dilations[i] * (kernel[i] - 1) - 1
                    if room < 0:
                        return False
        return True


def turning_points(model: onnx.ModelProto) -> list[int]:
    """The integers in the model's constants at which its arithmetic of sizes may turn."""
    points: set[int] = set()
    for t in constants(model.graph):
        if t.data_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32) and int(np.prod(t.dims or [1])) <= 16:
            points.update(abs(int(n)) for n in numpy_helper.to_array(t).flat if 1 < abs(int(n)) <= 600)
    return sorted(points)


def feeds(ort: onnxruntime.InferenceSession, points: list[int], rng: random.Random, attempt: int) -> dict[str, np.ndarray]:
    """Inputs at a binding: symbols near a turning point, or small; the same name is the same size. Defaults may be replaced."""
    values = np.random.default_rng(rng.getrandbits(32))
    sizes: dict[str, int] = {}
    made = {}
    defaults = ort.get_overridable_initializers() if rng.random() < 0.5 else []
    for port in [*ort.get_inputs(), *defaults]:
        shape = []
        for axis, s in enumerate(port.shape):
            if isinstance(s, int):
                shape.append(s)
                continue
            s = s or f"{port.name} {axis}"
            if s not in sizes:
                near = points and axis and rng.random() < 0.4
                small = (1, 2, 3, 3, 4, 5) if axis == 0 else (4, 5, 6, 7, 8, 9, 11, 12, 13, 16, 17, 32, 2, 1)
                sizes[s] = max(1, rng.choice(points) + rng.choice((-1, 0, 1))) if near else rng.choice(small)
            shape.append(sizes[s])
        while np.prod(shape, dtype=float) > 300_000:
            shape = [s for s in shape]
            raise ValueError("too large")
        dtype = np.dtype(TYPES[port.type])
        if dtype == np.bool_:
            array = values.integers(0, 2, shape)
        elif dtype.kind in "iu":
            array = values.integers(0 if dtype.kind == "u" else -20, 21, shape)
            if attempt == 2:
                array = array * (5 if dtype.itemsize == 1 else 50_000)  # sums that overflow saturate in ONNX Runtime
        else:
            array = values.standard_normal(shape) * (1.0 if attempt != 1 else 3.0)
        made[port.name] = np.asarray(array).astype(dtype)
    return made


def perturbed(model: onnx.ModelProto, given, rng) -> list[np.ndarray] | None:
    """What a model whose weights and inputs are a few roundings off computes."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    step = lambda a: (a * (1 + np.finfo(a.dtype).eps * rng.choice((-2.0, 2.0), a.shape))).astype(a.dtype)
    for t in constants(copy.graph):
        if t.data_type in (1, 10, 11):
            t.CopyFrom(numpy_helper.from_array(step(numpy_helper.to_array(t)), t.name))
    try:
        return session(copy.SerializeToString()).run(None, {k: step(v) if v.dtype.kind == "f" else v for k, v in given.items()})
    except Exception:
        return None


def difference(got: np.ndarray, want: np.ndarray, slack) -> str:
    """Why two arrays are not the same numbers, or nothing. `slack` gives what perturbed runs of the original compute."""
    if got.dtype != want.dtype or got.shape != want.shape:
        return f"{got.dtype}{list(got.shape)} instead of {want.dtype}{list(want.shape)}"
    if not want.size:
        return ""
    if want.dtype.kind != "f":
        return "" if (got == want).all() else f"{int((got != want).sum())} of {want.size} elements differ"
    a, b = got.astype(np.float64), want.astype(np.float64)
    finite = np.isfinite(b)
    if (np.isfinite(a) != finite).any() or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        n = int((np.isfinite(a) != finite).sum())
        others = slack()
        if any((np.isfinite(o) != finite).any() for o in others):
            return ""
        return f"finite and not finite: {n} of {want.size} elements differ"
    if not finite.any():
        return ""
    apart, largest = np.abs(a - b)[finite], np.abs(b[finite]).max()
    # next to nothing is nothing: what underflows in one order of operations does not in another
    room = TOLERANCE[want.dtype] * largest + float(np.finfo(want.dtype).eps) ** 1.5
    if apart.max() <= room:
        return ""
    noise = np.zeros_like(apart)
    for o in slack():
        o = o.astype(np.float64)[finite]
        noise = np.maximum(noise, np.where(np.isfinite(o), np.abs(o - b[finite]), np.inf))
    allowed = room + 50 * noise.max()
    if apart.max() <= allowed:
        return ""
    return f"{apart.max():.3g} apart, largest element {largest:.3g}, {int((apart > allowed).sum())} of {want.size} elements"


class Examination:
    """Of one model, in a folder of its own."""

    def __init__(self, convc: str, model: onnx.ModelProto, folder: Path, seed: str):
        self.convc, self.model, self.folder = convc, model, folder
        self.rng = random.Random(seed)
        self.verdict = Verdict()
        self.source = folder / "model.onnx"

    def fail(self, kind: str, way: str, text: str) -> None:
        self.verdict.failures.append(Failure(kind, way, " ".join(text.split())[:400]))

    def call(self, *command: str | Path) -> tuple[int, str, str]:
        try:
            done = subprocess.run([self.convc, *map(str, command)], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return 124, "", f"no end after {SECONDS} s"
        return done.returncode, done.stdout, done.stderr

    def judge(self, way: str, code: int, said: str) -> bool:
        """Whether convc came to a good end."""
        if code == 0:
            return True
        if way.startswith("run") and code == 3 and re.search(r"not executed|does not execute|not support|unsupported|cannot be run|is not known", said):
            self.verdict.unsupported = said.strip()
            return False
        kind = {4: "unverified", 101: "panic", 124: "timeout"}.get(code, "panic" if code < 0 else "refused")
        self.fail(kind, way, f"exit {code}: {said.strip()}")
        return False

    def run(self, skip: list[str] | None = None) -> Verdict:
        data = self.model.SerializeToString()
        self.source.write_bytes(data)
        try:
            original = session(data)
        except Exception as e:
            self.verdict.refused = " ".join(str(e).split())[:200]
            return self.verdict
        runs = self.runs(original)
        if not runs:
            self.verdict.refused = self.verdict.refused or "it runs at no binding"
            return self.verdict
        self.verdict.runs = len(runs)
        names = [o.name for o in original.get_outputs()]
        files = self.optimized(data, skip, runs[0][0])
        for way, path in files.items():
            if way != "dialect":
                self.in_runtime(way, path, names, runs)
        self.by_convc("run", self.source, names, runs)
        if "dialect" in files:
            alike = "optimize" in files and files["dialect"].read_bytes() == files["optimize"].read_bytes()
            self.by_convc("dialect", files["dialect"], names, runs[:1] if alike else runs)
        return self.verdict

    def runs(self, original) -> list:
        points, made = turning_points(self.model), []
        probe = Probe(self.model)
        is_open = any(not isinstance(s, int) for p in original.get_inputs() for s in p.shape)
        for attempt in range(12 if is_open else 2):
            try:
                given = feeds(original, points, self.rng, attempt)
                want = original.run(None, given)
                if not probe.is_defined(given):
                    continue
            except Exception as e:
                self.verdict.refused = " ".join(str(e).split())[:200]
                continue
            made.append((given, want, self.slack(given)))
            if len(made) == (RUNS if is_open else 2):
                break
        if made:
            self.verdict.refused = ""
        if all(0 in v.shape for given, _, _ in made for v in list(given.values())[:1]):
            return []  # a model that runs on nothing but nothing
        return made

    def slack(self, given):
        cache: list = []

        def compute(index: int) -> list[np.ndarray]:
            if not cache:
                cache.extend(r for r in (perturbed(self.model, given, np.random.default_rng(i)) for i in range(2)) if r)
            return [r[index] for r in cache]

        return compute

    def optimized(self, data: bytes, skip, given) -> dict[str, Path]:
        """The files that convc writes; each has passed onnx.checker. `given` is what a model runs at that convc finds no sizes for."""
        files: dict[str, Path] = {}
        without = [f"--skip={','.join(skip)}"] if skip else []
        for way, options in (("optimize", []), ("no-verify", ["--no-verify"]), ("dialect", ["--dialect", "convc"])):
            target, trace = self.folder / f"{way}.onnx", self.folder / f"{way}.jsonl"
            code, said, errors = self.call("optimize", self.source, "-o", target, "--trace", trace, "--json", *options, *without)
            if code == 2 and "runs at none of the sizes tried" in errors:
                np.savez(self.folder / "some.npz", **given)
                more = [*options, *without, "--inputs", self.folder / "some.npz"]
                code, said, errors = self.call("optimize", self.source, "-o", target, "--trace", trace, "--json", *more)
            if not self.judge(way, code, errors or said):
                continue
            if way == "optimize":
                self.verdict.rules = json.loads(said).get("rules", {})
            written = target.read_bytes()
            if way == "no-verify" and "optimize" in files and files["optimize"].read_bytes() == written:
                continue
            files[way] = target
            if way == "dialect" and "optimize" in files and files["optimize"].read_bytes() == written:
                continue
            if way != "dialect":
                try:
                    onnx.checker.check_model(written)
                except Exception as e:
                    try:
                        onnx.checker.check_model(data)
                        self.fail("invalid", way, f"onnx.checker: {e}")
                    except onnx.checker.ValidationError:
                        pass
            if way != "no-verify":
                code, said, errors = self.call("trace", "replay", trace, "--model", self.source, "--optimized", target)
                if code:
                    kind = "panic" if code == 101 else "timeout" if code == 124 else "replay"
                    self.fail(kind, f"{way} replay", f"exit {code}: {errors or said}")
        return files

    def in_runtime(self, way: str, path: Path, names: list[str], runs) -> None:
        try:
            ours = session(path.read_bytes())
        except Exception as e:
            return self.fail("invalid", way, f"ONNX Runtime refuses the file: {e}")
        for given, want, slack in runs:
            try:
                got = ours.run(names, given)
            except Exception as e:
                return self.fail("number", way, f"at {shapes(given)} ONNX Runtime fails: {e}")
            if self.compare(way, names, given, got, want, slack):
                return

    def compare(self, way: str, names, given, got, want, slack) -> bool:
        for i, name in enumerate(names):
            if said := difference(np.asarray(got[i]), np.asarray(want[i]), lambda i=i: slack(i)):
                self.fail("number", way, f"at {shapes(given)} output {name}: {said}")
                return True
        return False

    def by_convc(self, way: str, path: Path, names: list[str], runs) -> None:
        for given, want, slack in runs:
            source, target = self.folder / "in.npz", self.folder / "out.npz"
            np.savez(source, **given)
            code, said, errors = self.call("run", path, "--inputs", source, "--output", target, "--threads", "1")
            if not self.judge(way if way == "run" else f"run of {way}", code, f"at {shapes(given)}: {errors or said}"):
                return
            with np.load(target) as got:
                if set(got.files) != set(names):
                    return self.fail("number", way, f"outputs {got.files} instead of {names}")
                if self.compare(way, names, given, [got[n] for n in names], want, slack):
                    return


def shapes(given) -> str:
    return " ".join("x".join(map(str, v.shape)) or "scalar" for v in given.values())


def examine(convc: str, model: onnx.ModelProto, folder: Path, seed: str, skip: list[str] | None = None) -> Verdict:
    verdict = Examination(convc, model, folder, seed).run(skip)
    verdict.failures.sort(key=lambda f: KINDS.index(f.kind))
    return verdict
