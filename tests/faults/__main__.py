"""Have every change that a command makes to a file fail once in each way, and count what comes of it.

    python -m tests.faults --json docs/reliability.json
    python -m tests.faults --table docs/reliability.json

About half an hour on 2 quiet cores with --turns, and four times that without. It needs Linux on x86-64.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import itertools
import json
import platform
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import jax

from tests.faults.matrix import COMMANDS, FAULTS, OUTCOMES, Bench, Result, one_of_each
from tests.faults.system_calls import unavailable


def main(argv: list[str]) -> int:
    """Run the matrix or print a saved one; 1 where anything went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=(__doc__ or "").partition("\n")[0])
    names = [command.name for command in COMMANDS]
    parser.add_argument("--command", nargs="+", choices=names, default=names, help="commands to disturb")
    parser.add_argument("--every", action="store_true", help="every single call, not the first of each kind to a file")
    parser.add_argument("--turns", action="store_true", help="one fault a call, the faults in turn, not all of them")
    parser.add_argument("--json", type=Path, help="write the counts to this file, beside those of other commands")
    parser.add_argument("--table", type=Path, help="print a saved file as a table, and end")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time")
    words = parser.parse_args(argv)
    if words.table:
        print(markdown_table(json.loads(words.table.read_text())))
        return 0
    if reason := unavailable():
        parser.error(reason)
    with tempfile.TemporaryDirectory(prefix="faults_") as place:
        results = list(matrix(words.command, Path(place), words.every, words.turns, words.workers))
    content = summary(results)
    if words.json:
        if words.json.exists():
            content = united(json.loads(words.json.read_text()), content)
        words.json.write_text(json.dumps(content, indent=2) + "\n")
    print(markdown_table(content))
    return int(any(result.outcome == "wrong" for result in results))


def matrix(names: Sequence[str], place: Path, every: bool, turns: bool, workers: int) -> list[Result]:
    """The results of all commands, moments and faults; wrong ones are printed as they come."""
    results = []
    for command in COMMANDS:
        if command.name not in names:
            continue
        (place / command.name).mkdir()
        bench = Bench(command, place / command.name)
        moments = bench.moments if every else list(one_of_each(bench.moments))
        pairs = list(itertools.product(moments, FAULTS))
        if turns:
            pairs = list(zip(moments, itertools.cycle(FAULTS), strict=False))
        print(f"{command.name}: {len(moments)} of {len(bench.moments)} calls, {len(pairs)} faults", flush=True)
        with ThreadPoolExecutor(workers) as pool:
            for future in as_completed([pool.submit(bench.result, *pair) for pair in pairs]):
                results.append(result := future.result())
                if result.outcome == "wrong":
                    print(f"wrong: {result.fault} at {result.moment}: {result.why}", flush=True)
    return results


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """Counts of outcomes by command and fault, and every wrong one, for JSON."""
    counts: dict[str, Any] = {}
    for result in results:
        row = counts.setdefault(result.command, {"calls": set()})
        row["calls"].add(result.moment)
        row.setdefault(result.fault, collections.Counter())[result.outcome] += 1
    return {
        "machine": f"{platform.system()}, Python {platform.python_version()}, JAX {jax.__version__}",
        "commands": {name: row | {"calls": len(row["calls"])} for name, row in counts.items()},
        "wrong": [dataclasses.asdict(result) for result in results if result.outcome == "wrong"],
    }


def united(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Two summaries as one, in the order of the commands; of a command that both have, the second's."""
    rows = before["commands"] | now["commands"]
    wrong = [one for one in before["wrong"] if one["command"] not in now["commands"]] + now["wrong"]
    return now | {"commands": {one.name: rows[one.name] for one in COMMANDS if one.name in rows}, "wrong": wrong}


def markdown_table(content: dict[str, Any]) -> str:
    """The counts of a matrix as the table of docs/reliability.md."""
    lines = [
        f"| command | calls | {' | '.join(FAULTS)} |",
        f"| --- | --- | {' | '.join('---' for _ in FAULTS)} |",
    ]
    for name, row in content["commands"].items():
        cells = [
            ", ".join(
                f"{row.get(fault, {})[outcome]} {outcome}" for outcome in OUTCOMES if row.get(fault, {}).get(outcome)
            )
            for fault in FAULTS
        ]
        lines.append(f"| `{name}` | {row['calls']} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
