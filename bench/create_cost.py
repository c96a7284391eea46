"""The cost of a warm create, start and delete; see bench/create_cost."""

from __future__ import annotations

import argparse
import json
import statistics

from bench.warm import ACCOUNT, once, parties

STEPS = ("create", "start", "delete")


def main() -> None:
    parser = argparse.ArgumentParser(prog="create_cost")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--running", action="store_true", help="delete --force while it runs")
    parser.add_argument("--phases", action="store_true", help="what create's log says of itself")
    given = parser.parse_args()
    with parties() as (theirs, ours, machine):
        log = machine.directory / "log"
        if given.phases:
            ours.program += ["--log", str(log), "--log-format", "json"]
        times: dict[str, list[list[float]]] = {theirs.name: [], ours.name: []}
        spent: dict[str, list[list[float]]] = {theirs.name: [], ours.name: []}
        ACCOUNT.open()
        for number in range(given.rounds):
            for party in (theirs, ours):
                name = f"{party.name}-{number}"
                times[party.name].append(once(party, name, ended=not given.running))
                spent[party.name].append(list(party.processor))
        ACCOUNT.close()
        lines = log.read_text().splitlines() if given.phases else []
    print("processor time of each step and all that it starts: median, least")
    for name, rows in spent.items():
        columns = list(zip(*rows, strict=True))
        words = ", ".join(
            f"{step} {statistics.median(column):.1f}, {min(column):.1f}"
            for step, column in zip(STEPS, columns, strict=True)
        )
        print(f"{name:<10} {words} ms")
    medians = {name: show(name, rows) for name, rows in times.items()}
    print(f"difference of the medians: {medians['clip-runc'] - medians['runc']:.1f} ms")
    for phase in ("resolve_ms", "mount_ms", "rewrite_ms"):
        found = [float(fields[phase]) for line in lines if phase in (fields := json.loads(line))]
        if found:
            print(f"{phase} median {statistics.median(found):.1f}, most {max(found):.1f}")


def show(name: str, rows: list[list[float]]) -> float:
    """Print medians of the steps and of the whole; the latter in milliseconds."""
    steps = [statistics.median(column) for column in zip(*rows, strict=True)]
    whole = statistics.quantiles([sum(row) for row in rows], n=4)
    words = ", ".join(f"{step} {value:.1f}" for step, value in zip(STEPS, steps, strict=True))
    low, middle, high = whole
    print(f"{name:<10} {words}; together {middle:.1f} ms (quartiles {low:.1f} to {high:.1f})")
    return middle


if __name__ == "__main__":
    main()
