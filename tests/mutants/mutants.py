"""Change the rules on purpose, one place at a time, and see whether the tests notice: a sample of cargo-mutants' list.

usage: mutants.py [--count 60] [--seed N] [--work DIR] [--report FILE] [--cases N] [--only TEXT] [--seconds S]
needs: cargo install cargo-mutants (any version whose list has --json and --diff), and nothing of Python but its library

A mutant is one changed expression or body in compiler/src/rewrite/rules or compiler/src/rewrite/index_map; mutants of text (what
reasons and names say) are left out. `--seed` draws the order in which they are tried; mutants that do not compile are not counted.
Each is applied in a copy of the last commit and built, and the test suites run until one fails, the rule's own properties first.

The report is a file of JSON lines, one for each mutant tried. A run that is ended goes on where it stopped: what the report
holds for the same commit and seed is not tried again. `--seconds` ends a run at the first mutant after that time.

`survivors.md` beside this file names each survivor that changes nothing, and why. The exit code is 1 if a mutant survives that
is not named there.
"""
from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ["compiler/src/rewrite/rules/**/*.rs", "compiler/src/rewrite/index_map/**/*.rs"]
# The suites, cheapest first, as `cargo test --workspace` selects them, so that all are built with the same features.
# `{rules}` becomes the names of the properties of the rules in the changed file.
SUITES: list[tuple[str, list[str]]] = [
    ("goldens", ["--test", "filetests"]),
    ("own properties", ["--test", "properties", "--", "{rules}"]),
    ("systems", ["--test", "systems"]),
    ("coverage", ["--test", "coverage"]),
    ("properties", ["--test", "properties"]),
    ("audit", ["--test", "audit"]),
    ("units", ["--lib", "rewrite"]),
    ("the rest", []),
]
# A mutant that makes a search endless is killed by its suite's time.
SUITE_SECONDS = 900


def run(command: list[str], cwd: Path, seconds: float | None = None, **environment: str) -> subprocess.CompletedProcess | None:
    """The finished command, or None if it took too long."""
    try:
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL,
                              env={**os.environ, **environment})
    except subprocess.TimeoutExpired:
        return None


def listed(tree: Path) -> list[dict]:
    """All mutants of the rooms, in the order of cargo-mutants, each with its diff."""
    files = [word for room in ROOMS for word in ("-f", room)]
    done = run(["cargo", "mutants", "--list", "--json", "--diff", *files], tree)
    if done is None or done.returncode != 0:
        sys.exit(f"cargo mutants does not list: {done.stderr.strip() if done else 'no answer'}\ninstall it by `cargo install cargo-mutants`")
    return [m for m in json.loads(done.stdout) if not is_text(m)]


def is_text(mutant: dict) -> bool:
    """Whether a mutant only changes what is said: bodies that return strings, and formatting."""
    function = mutant.get("function") or {}
    returns, name = function.get("return_type", ""), function.get("function_name", "")
    return bool(re.search(r"\bString\b|&'?\w* ?str\b|fmt::Result", returns)) or name.endswith("::fmt") or "/tests" in mutant["file"]


def own_rules(file: Path) -> list[str]:
    """The properties of the rules that a file holds, as tests are named."""
    return [name.replace("-", "_") for name in re.findall(r'^    name: "([a-z0-9-]+)",\s*\n\s*equation', file.read_text(), re.M)]


def verdict(tree: Path, mutant: dict, cases: int) -> tuple[str, str]:
    """What becomes of the mutant that stands in the tree: unviable, killed (and by what), or survived."""
    built = run(["cargo", "test", "--workspace", "--no-run", "--test", "filetests"], tree, SUITE_SECONDS)
    if built is None or built.returncode != 0:
        return "unviable", ""
    rules = own_rules(tree / mutant["file"])
    for name, arguments in SUITES:
        if "{rules}" in arguments and not rules:
            continue
        filled = [word for a in arguments for word in (rules if a == "{rules}" else [a])]
        done = run(["cargo", "test", "-q", "--workspace", *filled], tree, SUITE_SECONDS, CONVC_CASES=str(cases))
        if done is None:
            return "killed", f"{name}: out of time"
        if done.returncode != 0:
            failed = re.findall(r"^    (\S+)$", done.stdout, re.M)
            return "killed", f"{name}: {', '.join(failed[:3]) or 'does not build'}"
    return "survived", ""


def clone(work: Path) -> tuple[Path, str]:
    """A copy of the last commit, kept between runs for its build products."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    tree = work / "tree"
    if not (tree / ".git").exists():
        shutil.rmtree(tree, ignore_errors=True)
        subprocess.run(["git", "clone", "-q", str(ROOT), str(tree)], check=True)
    subprocess.run(["git", "fetch", "-q", "origin"], cwd=tree, check=True)
    subprocess.run(["git", "checkout", "-q", "--force", "--detach", head], cwd=tree, check=True)
    return tree, head


def main() -> int:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--count", type=int, default=60, help="viable mutants to try")
    ap.add_argument("--seed", type=int, default=1, help="draws which")
    ap.add_argument("--work", type=Path, default=ROOT / "target" / "mutants")
    ap.add_argument("--report", type=Path, help="default: report.jsonl in the work folder")
    ap.add_argument("--cases", type=int, default=60, help="random cases for each rule")
    ap.add_argument("--only", default="", help="only mutants whose name holds this text")
    ap.add_argument("--seconds", type=float, default=float("inf"), help="begin no mutant after this time")
    a = ap.parse_args()
    begun = time.monotonic()
    a.work.mkdir(parents=True, exist_ok=True)
    report = a.report or a.work / "report.jsonl"
    tree, head = clone(a.work.resolve())
    mutants = [m for m in listed(tree) if a.only in m["name"]]
    random.Random(a.seed).shuffle(mutants)
    lines = [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []
    known = {line["name"]: line for line in lines if (line["commit"], line["seed"]) == (head, a.seed)}
    excused = (Path(__file__).with_name("survivors.md")).read_text()
    print(f"{len(mutants)} mutants, {len(known)} tried before; commit {head[:9]}, seed {a.seed}", flush=True)
    tried: list[dict] = []
    for mutant in mutants:
        if sum(t["outcome"] != "unviable" for t in tried) >= a.count:
            break
        line = known.get(mutant["name"])
        if line is None:
            if time.monotonic() - begun > a.seconds:
                break
            change = "\n".join([f"--- a/{mutant['file']}", f"+++ b/{mutant['file']}", *mutant["diff"].splitlines()[2:], ""])
            applied = subprocess.run(["git", "apply", "-"], cwd=tree, input=change, text=True, capture_output=True)
            if applied.returncode != 0:
                sys.exit(f"the change does not apply: {mutant['name']}\n{applied.stderr}")
            start = time.monotonic()
            outcome, by = verdict(tree, mutant, a.cases)
            subprocess.run(["git", "checkout", "-q", "--force", "."], cwd=tree, check=True)
            line = {"commit": head, "seed": a.seed, "name": mutant["name"], "outcome": outcome, "by": by,
                    "seconds": round(time.monotonic() - start)}
            with report.open("a") as f:
                f.write(json.dumps(line) + "\n")
        tried.append(line)
        print(f"{line['outcome']:9} {line['seconds']:4} s  {line['name']}  {line['by']}", flush=True)
    viable = [t for t in tried if t["outcome"] != "unviable"]
    left = [t["name"] for t in viable if t["outcome"] == "survived"]
    # Lines move; what stands there does not.
    unnamed = [name for name in left if re.sub(r":\d+:\d+:", ":", name) not in excused]
    print(f"{len(viable)} viable mutants, {len(viable) - len(left)} killed, {len(left)} survived, {len(unnamed)} of them not explained")
    return 1 if unnamed else 0


if __name__ == "__main__":
    sys.exit(main())
