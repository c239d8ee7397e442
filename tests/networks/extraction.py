"""Hold convc's extraction against an integer programme on the regions of real networks: one table, exit 1 where it costs more.

usage: python extraction.py [--models FILE_OR_FOLDER ..] [--regions DIR] [--seconds S] [--table FILE] [--existing]
needs: pip install -r requirements.txt (beside this file), cargo

The saturated regions of the models (every .onnx of a folder) are written by convc's own test into --regions, each distinct one once,
with the cost that the climb found. HiGHS then looks for the least cost of each, --seconds at most (60): which alternatives are
taken, which classes are in use, and an order of those that could lie on a cycle. For each model the table has its distinct regions,
the alternatives of the largest, in how many regions the climb's cost is the optimum, in how many it is dearer, and for those that the
solver did not finish the largest gap between the climb's cost and the best bound.
"""
from __future__ import annotations

import argparse
import collections
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import highspy

from networks import ROOT

UNIT = 1e9
TEST = ["cargo", "test", "-q", "-p", "convc", "--lib", "rewrite::extract::tests::models::regions_of_the_samples_cost_least"]


@dataclass
class Problem:
    """Classes, each a list of alternatives (cost, classes needed); the one that is wanted."""

    root: int
    found: int
    before: int
    classes: list[list[tuple[int, frozenset[int]]]] = field(default_factory=list)


def read(path: Path) -> Problem:
    text = json.loads(path.read_text())
    classes = [[(cost, frozenset(needs)) for cost, needs in c] for c in text["classes"]]
    return Problem(text["root"], text["found"], text["before"], classes)


def reduced(p: Problem) -> Problem:
    """The same least cost with fewer alternatives: an alternative that costs no less than another of its class and needs all that
    the other needs is never better, and a class that is free and needs nothing need not be asked for."""
    classes = [list(c) for c in p.classes]
    free: set[int] = set()
    while True:
        for n, c in enumerate(classes):
            c = [(cost, needs - free) for cost, needs in c if n not in needs]
            kept: list[tuple[int, frozenset[int]]] = []
            for cost, needs in sorted(set(c), key=lambda a: (a[0], len(a[1]), sorted(a[1]))):
                if not any(k <= cost and m <= needs for k, m in kept):
                    kept.append((cost, needs))
            classes[n] = kept
        # What nothing makes cannot be needed.
        nothing = {n for n, c in enumerate(classes) if not c}
        lost = any(needs & nothing for c in classes for _, needs in c)
        classes = [[(cost, needs) for cost, needs in c if not needs & nothing] for c in classes]
        more = {n for n, c in enumerate(classes) if n != p.root and any(cost == 0 and not needs for cost, needs in c)} - free
        if not more and not lost:
            return Problem(p.root, p.found, p.before, classes)
        free |= more


def components(classes: list[list[tuple[int, frozenset[int]]]]) -> list[int]:
    """The strongly connected component of each class: alternatives across two of them make no cycle."""
    edges = [sorted(set().union(*(needs for _, needs in c))) if c else [] for c in classes]
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    component = [-1] * len(classes)
    stack: list[int] = []
    for start in range(len(classes)):
        if start in index:
            continue
        work = [(start, iter(edges[start]))]
        index[start] = low[start] = len(index)
        stack.append(start)
        while work:
            at, rest = work[-1]
            for to in rest:
                if to not in index:
                    index[to] = low[to] = len(index)
                    stack.append(to)
                    work.append((to, iter(edges[to])))
                    break
                if component[to] < 0:
                    low[at] = min(low[at], index[to])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[at])
                if low[at] == index[at]:
                    while True:
                        n = stack.pop()
                        component[n] = at
                        if n == at:
                            break
    return component


def solve(p: Problem, seconds: float) -> tuple[float, float]:
    """The least cost found and the best bound of it, in the profile's unit."""
    p = reduced(p)
    reach, stack = {p.root}, [p.root]
    while stack:
        for _, needs in p.classes[stack.pop()]:
            stack += needs - reach
            reach |= needs
    component = components(p.classes)
    sizes = collections.Counter(component[c] for c in reach)
    h = highspy.Highs()
    h.setOptionValue("output_flag", False)
    h.setOptionValue("time_limit", seconds)
    h.setOptionValue("mip_rel_gap", 0.0)
    h.setOptionValue("mip_abs_gap", 1e-7)
    h.setOptionValue("threads", 1)
    used = {c: h.addVariable(lb=1.0 if c == p.root else 0.0, ub=1.0) for c in sorted(reach)}
    rank = {c: h.addVariable(lb=0.0, ub=float(sizes[component[c]])) for c in sorted(reach) if sizes[component[c]] > 1}
    for c in sorted(reach):
        taken = []
        for cost, needs in p.classes[c]:
            t = h.addBinary(obj=cost / UNIT)
            taken.append(t)
            for n in sorted(needs):
                if component[n] == component[c]:
                    m = float(sizes[component[c]])
                    h.addConstr(rank[n] + 1.0 <= rank[c] + (m + 1.0) * (1.0 - t))
        h.addConstr(sum(taken[1:], taken[0] * 1.0) == used[c])
        # A class is in use if any alternative that needs it is taken; one constraint for all of them is the tightest.
        for n in sorted(set().union(*(needs for _, needs in p.classes[c]))):
            asking = [t for t, (_, needs) in zip(taken, p.classes[c]) if n in needs]
            h.addConstr(sum(asking[1:], asking[0] * 1.0) <= used[n])
    h.minimize()
    info = h.getInfo()
    return info.objective_function_value, info.mip_dual_bound


@dataclass
class Row:
    model: str
    regions: int = 0
    largest: int = 0
    equal: int = 0
    dearer: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    seconds: float = 0.0


def examine(row: Row, path: Path, seconds: float) -> None:
    p = read(path)
    row.regions += 1
    row.largest = max(row.largest, sum(len(c) for c in p.classes))
    start = time.perf_counter()
    best, bound = solve(p, seconds)
    row.seconds += time.perf_counter() - start
    found = p.found / UNIT
    near = 1e-6 * max(found, 1.0)
    if found > best + near:
        row.dearer.append(f"{path.stem}: {found:.4f}, {best:.4f} is possible ({(found / best - 1):.3%} dearer)")
    elif found <= bound + near:
        row.equal += 1
    else:
        row.open.append(f"{path.stem}: {found:.4f}, no less than {bound:.4f} ({(1 - bound / found):.3%})")


def table(rows: list[Row]) -> str:
    lines = ["| model | regions | largest | optimal | dearer | not finished | solver s |", "|---|---|---|---|---|---|---|"]
    for r in sorted(rows, key=lambda r: (not r.dearer, r.model)):
        lines.append(f"| {r.model} | {r.regions} | {r.largest} | {r.equal} | {'; '.join(r.dearer)} | {'; '.join(r.open)} | {r.seconds:.1f} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", type=Path, default=[ROOT / "target" / "networks"])
    parser.add_argument("--regions", type=Path, default=ROOT / "target" / "regions", help="folder of the problems")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each region")
    parser.add_argument("--existing", action="store_true", help="write no problems: only what lies in --regions")
    parser.add_argument("--table", type=Path, help="write the table there too, after every model")
    args = parser.parse_args()
    if not args.existing:
        models = [f for m in args.models for f in (sorted(m.glob("*.onnx")) if m.is_dir() else [m])]
        args.regions.mkdir(parents=True, exist_ok=True)
        for old in args.regions.glob("*.json"):
            old.unlink()
        listed = os.pathsep.join(str(m.resolve()) for m in models)
        subprocess.run(TEST, check=True, cwd=ROOT, env={**os.environ, "CONVC_REGIONS_OF": listed, "CONVC_REGIONS_TO": str(args.regions.resolve())})
    rows: dict[str, Row] = {}
    for path in sorted(args.regions.glob("*.json")):
        model = path.stem.rsplit(".", 1)[0]
        row = rows.setdefault(model, Row(model))
        examine(row, path, args.seconds)
        if args.table:
            args.table.write_text(table(list(rows.values())))
    print(table(list(rows.values())))
    regions = sum(r.regions for r in rows.values())
    dearer, unfinished = sum(len(r.dearer) for r in rows.values()), sum(len(r.open) for r in rows.values())
    print(f"extraction: {regions - dearer - unfinished} of {regions} distinct regions cost the optimum, {dearer} are dearer, {unfinished} are not proved")
    return 1 if dearer or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
