"""Work in other processes that outlives what ONNX Runtime does to a process: on some models it aborts."""
from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any


def each(work: Callable[[Any, Any], Any], items: list, args: Any, jobs: int) -> Iterator[tuple[Any, Any]]:
    """Every item with what `work(item, args)` gives, as it comes; with `None` where the process died of it."""
    context, waiting = multiprocessing.get_context("spawn"), list(reversed(items))
    suspects: list = []
    while waiting:
        with concurrent.futures.ProcessPoolExecutor(jobs, context) as workers:
            running: dict = {}
            try:
                while waiting or running:
                    while waiting and len(running) < 2 * jobs:
                        item = waiting.pop()
                        running[workers.submit(work, item, args)] = item
                    for job in concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED).done:
                        result = job.result()
                        yield running.pop(job), result
            except BrokenProcessPool:
                suspects += running.values()
        for item in suspects:
            with concurrent.futures.ProcessPoolExecutor(1, context) as worker:
                try:
                    result = worker.submit(work, item, args).result()
                except BrokenProcessPool:
                    result = None
            yield item, result
        suspects.clear()


def apart(holds: Callable[[Any], bool], value: Any) -> bool:
    """Whether `holds(value)`, asked in a process of its own; not if that dies."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        said = b"n"
        try:
            said = b"y" if holds(value) else b"n"
        finally:
            os.write(writing, said)
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said == b"y"
