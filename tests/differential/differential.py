"""Hold convc against ONNX Runtime on random graphs and on look-alikes of real exports; exit 1 if any model fails.

usage: python differential.py [--convc PATH] [--random N] [--lookalikes N] [--seed S] [--exports DIR] [--shared DIR]
                              [--fast] [--case KIND:I] [--tolerate KIND ..] [--jobs N] [--failures DIR] [--shrink N] [--seconds S] [--rules]
needs: pip install -r requirements.txt (beside this file); exports that do not lie in --exports are made with the packages of
       tests/networks/requirements.txt

A random graph (graphs.py) is a few pieces of convolutional networks in a row, drawn so that rules match or nearly match. A look-alike
(lookalikes.py) is an export of a block of tests/networks/blocks.py with one thing changed. Each is run as check.py says: by
`convc run`, and after `convc optimize`, `--no-verify` and `--dialect convc`, against ONNX Runtime without optimisations, at sizes
that convc did not see. The I-th model of a seed is always the same: `--case random:17 --seed S` tries it alone.

Failures that have the same kind and go away without the same rule are alike. Of each, --shrink N models are made minimal (shrink.py)
and written to --failures as .onnx and .txt: the model as text, what fails, and the rules that fired.
"""
from __future__ import annotations

import argparse
import collections
import json
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import onnx

import check
import graphs
import lookalikes
from crew import apart, each
from shrink import shrink

ROOT = Path(__file__).resolve().parents[2]
ASIDE = Path("/dev/shm") if Path("/dev/shm").is_dir() else None


@dataclass
class Outcome:
    """What came of one model."""

    case: str
    label: str
    verdict: check.Verdict
    culprits: list[str] = field(default_factory=list)  # rules without which it does not fail
    seconds: float = 0.0

    @property
    def signature(self) -> str:
        f = self.verdict.failures[0]
        return f"{f.kind}: {'+'.join(self.culprits)} {f.gist}".strip()


def model_of(case: str, args) -> tuple[onnx.ModelProto, str]:
    """A model by its case, and what it is called."""
    kind, _, index = case.partition(":")
    if kind == "random":
        return graphs.draw(f"{args.seed} {index}"), case
    return lookalikes.draw(f"{args.seed} {index}", args)


def tried(model: onnx.ModelProto, args, seed: str, skip: list[str] | None = None) -> check.Verdict:
    with tempfile.TemporaryDirectory(prefix="differential-", dir=ASIDE) as folder:
        return check.examine(str(args.convc), model, Path(folder), seed, skip)


def examine(case: str, args) -> Outcome:
    start = time.perf_counter()
    try:
        model, label = model_of(case, args)
        outcome = Outcome(case, label, tried(model, args, case))
    except Exception as e:
        return Outcome(case, case, check.Verdict(failures=[check.Failure("harness", "none", "".join(traceback.format_exception(e))[-300:])]))
    if outcome.verdict.failures and outcome.verdict.failures[0].kind not in ("replay", "timeout"):
        kind = outcome.verdict.failures[0].kind
        for rule in outcome.verdict.rules or rules_of(model, args):
            if not any(f.kind == kind and not f.way.startswith("run") for f in tried(model, args, case, [rule]).failures):
                outcome.culprits.append(rule)
    outcome.seconds = time.perf_counter() - start
    return outcome


def rules_of(model: onnx.ModelProto, args) -> dict[str, int]:
    """The rules that fire where verification does not end it."""
    with tempfile.TemporaryDirectory(prefix="differential-", dir=ASIDE) as folder:
        e = check.Examination(str(args.convc), model, Path(folder), "")
        e.source.write_bytes(model.SerializeToString())
        code, said, _ = e.call("optimize", e.source, "-o", Path(folder) / "o.onnx", "--no-verify", "--json")
        return json.loads(said).get("rules", {}) if code == 0 else {}


def minimal(outcome: Outcome, args) -> Path:
    """Writes the smallest model that fails in the same way."""
    model, label = model_of(outcome.case, args)
    first = outcome.verdict.failures[0]
    kind, ways = first.kind, {f.way for f in outcome.verdict.failures if (f.kind, f.gist) == (first.kind, first.gist)}

    def fails(candidate: onnx.ModelProto) -> bool:
        try:
            return any((f.kind, f.gist) == (kind, first.gist) and f.way in ways for f in tried(candidate, args, outcome.case).failures)
        except Exception:
            return False

    small = shrink(model, lambda candidate: apart(fails, candidate), args.seconds)
    verdict = tried(small, args, outcome.case)
    args.failures.mkdir(parents=True, exist_ok=True)
    stem = args.failures / re.sub(r"[^a-z0-9]+", "_", f"{args.seed} {outcome.case} {kind} {'_'.join(outcome.culprits[:2])}".lower()).strip("_")
    onnx.save(small, f"{stem}.onnx")
    lines = [label, *map(str, verdict.failures), "rules: " + ", ".join(verdict.rules or rules_of(small, args)), "without which it passes: " + ", ".join(outcome.culprits)]
    Path(f"{stem}.txt").write_text("\n".join(lines) + "\n\n" + onnx.printer.to_text(small) + "\n")
    return Path(f"{stem}.onnx")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--convc", type=Path, default=ROOT / "target/debug/convc")
    parser.add_argument("--random", type=int, default=0)
    parser.add_argument("--lookalikes", type=int, default=0)
    parser.add_argument("--seed", default=str(random.SystemRandom().randrange(10**6)))
    parser.add_argument("--exports", type=Path, default=ROOT / "target/systems", help="where exports lie, or are put")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--fast", action="store_true", help="look-alikes of those exports only that `systems.py --fast` makes")
    parser.add_argument("--case", action="append", default=[], help="these models only, such as random:17")
    parser.add_argument("--tolerate", nargs="*", default=[], choices=check.KINDS, help="kinds of failures that are counted and do not fail the run")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--failures", type=Path, default=ROOT / "target/differential")
    parser.add_argument("--shrink", type=int, default=1, help="how many models of failures that are alike")
    parser.add_argument("--rules", action="store_true", help="print in how many models each rule fired")
    parser.add_argument("--seconds", type=float, default=120, help="for each model that is made minimal")
    args = parser.parse_args()
    cases = args.case or [f"random:{i}" for i in range(args.random)] + [f"lookalike:{i}" for i in range(args.lookalikes)]
    start = time.perf_counter()
    print(f"differential: seed {args.seed}", flush=True)
    bad, refused, runs, rules = [], collections.Counter(), 0, collections.Counter()
    for case, outcome in each(examine, cases, args, args.jobs):
        if outcome is None or outcome.verdict.refused:  # None: ONNX Runtime aborted
            refused[case.partition(":")[0]] += 1
            continue
        runs += outcome.verdict.runs
        rules.update(outcome.verdict.rules.keys())
        if outcome.verdict.failures:
            bad.append(outcome)
            print(f"{case} ({outcome.label}): {outcome.verdict.failures[0]} [{', '.join(outcome.culprits)}]", flush=True)
    alike: dict[str, list[Outcome]] = {}
    for outcome in sorted(bad, key=lambda o: o.case):
        alike.setdefault(outcome.signature, []).append(outcome)
    chosen = [o for group in alike.values() for o in group[: args.shrink] if o.verdict.failures[0].kind != "harness"]
    for _, path in each(minimal, chosen, args, args.jobs):
        print(f"minimal: {path}", flush=True)
    for signature, group in sorted(alike.items(), key=lambda i: -len(i[1])):
        print(f"{len(group):5} {signature}: {', '.join(o.case for o in group[:4])}")
    if args.rules:
        known = json.loads(subprocess.run([args.convc, "list", "rules", "--json"], capture_output=True, text=True, check=True).stdout)["rules"]
        print("fired:", ", ".join(f"{r['rule']} {rules[r['rule']]}" for r in sorted(known, key=lambda r: rules[r["rule"]])))
    kinds = collections.Counter(o.verdict.failures[0].kind for o in bad)
    print(
        f"differential: seed {args.seed}: {len(cases)} models, {len(cases) - sum(refused.values())} run by ONNX Runtime"
        f" ({', '.join(f'{n} {k} refused' for k, n in refused.items()) or 'none refused'}), {runs} runs each way, {len(rules)} rules fired,"
        f" {len(bad)} fail ({', '.join(f'{n} {k}' for k, n in kinds.items()) or 'none'}), {time.perf_counter() - start:.0f} s"
    )
    return 1 if any(o.verdict.failures[0].kind not in args.tolerate for o in bad) else 0


if __name__ == "__main__":
    sys.exit(main())
