#!/usr/bin/python3
"""Fresh seeds for a while: runs the simulator's suites over seeds nobody has run, and sums up in docs/internals/soak.md.

The seeds begin where the newest row of the table ended. Every failing seed is printed and ends the soak with 1; it belongs
into sim/corpus with its fix.
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TABLE = ROOT / "docs" / "internals" / "soak.md"
# Seeds between two looks at the clock.
SLICE = 100


def seconds(text: str) -> int:
    match = re.fullmatch(r"(\d+)(s|m|h)", text)
    if not match:
        raise argparse.ArgumentTypeError("a duration is 90s, 45m or 2h")
    return int(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--for", dest="duration", type=seconds, default=seconds("45m"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--suite", default="node")
    parser.add_argument("--seconds", type=int, default=120, help="simulated, per seed")
    parser.add_argument("--first", type=int, default=1_000_001, help="where an empty table begins")
    arguments = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    rows = re.findall(rf"^\| \S+ \| {arguments.suite} \| (\d+)-(\d+) ", TABLE.read_text(), re.M) if TABLE.exists() else []
    first = seed = max([int(row[1]) for row in rows], default=arguments.first - 1) + 1
    begin = time.monotonic()
    simulated = operations = 0
    fired: dict[str, int] = {}
    failed = False
    while time.monotonic() - begin < arguments.duration and not failed:
        last = seed + SLICE - 1
        result = subprocess.run(
            [str(ROOT / "build/release/simulate"), arguments.suite, "--seeds", f"{seed}-{last}", "--seconds",
             str(arguments.seconds), "--jobs", str(arguments.jobs), "--json"], capture_output=True, text=True)
        lines = result.stdout.strip().splitlines()
        failed = result.returncode != 0
        if failed:
            print(result.stdout + result.stderr)
        try:
            summary = json.loads(lines[-1])
        except (IndexError, json.JSONDecodeError):
            failed = True
            break
        simulated += summary["simulated_ms"] / 1000
        operations += summary["operations"]
        for fault, (times, _) in summary["faults"].items():
            fired[fault] = fired.get(fault, 0) + times
        seed = last + 1
        print(f"seeds {first}-{last}: {int(time.monotonic() - begin)} s", flush=True)
    hours = (time.monotonic() - begin) / 3600
    faults = sum(fired.values())
    print("faults: " + ", ".join(f"{fault} {times}" for fault, times in sorted(fired.items()) if times))
    row = (f"| {commit} | {arguments.suite} | {first}-{seed - 1} | {hours * arguments.jobs:.2f} | {simulated / 31_557_600:.4f} | "
           f"{operations} | {faults / max(simulated / 3600, 1e-9):.0f} | {'failed' if failed else '0'} |")
    print(row)
    if not TABLE.exists():
        TABLE.write_text("# Long runs\n\nSums of `make soak`, a row each: fresh seeds, never run before.\n\n"
                         "| commit | suite | seeds | core-hours | cluster-years | operations judged | faults/simulated hour | violations |\n"
                         "|---|---|---|---|---|---|---|---|\n")
    with TABLE.open("a") as table:
        table.write(row + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
