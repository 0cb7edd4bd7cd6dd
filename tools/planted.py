#!/usr/bin/python3
"""Tests of the tests: each known bug is planted in one copy of the tree, and must be found.

Bugs stand in tests/planted/*.toml: a number, a name, edits (file, text to find exactly once, its replacement, in which
`planted(N)` is true when bug N is switched on), and the cheapest finder: a command of the built copy that passes without the
bug. A finder that does not end in time finds nothing, unless the bug says `finder_may_hang = true`. All are compiled into
one build; a number in CONCLAVE_PLANTED chooses one at run time. Nothing of this is in the product. The unplanted build must
pass every finder, and a plant without effect (number 0 and an unknown number) must not be found: a finder that fails
whatever it is given finds nothing.
"""
import argparse
import concurrent.futures
import os
import pathlib
import shutil
import subprocess
import sys
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
COPY = ROOT / "build" / "planted" / "tree"
BUILD = ROOT / "build" / "planted" / "build"
NULL_PLANT = 999_999

HEADER = """#pragma once
#include <cstdlib>
// Only in the copy that tools/planted.py makes.
inline bool planted(int number) {
  static const int chosen = [] { const char* text = std::getenv("CONCLAVE_PLANTED"); return text ? std::atoi(text) : 0; }();
  return chosen == number;
}
"""


def load(only: str | None) -> list[dict]:
    bugs = []
    for path in sorted((ROOT / "tests" / "planted").glob("*.toml")):
        if only and path.stem != only:
            continue
        data = tomllib.loads(path.read_text())
        for bug in data["bug"]:
            bug["group"] = path.stem
            bug["finder"] = bug.get("finder", data.get("finder"))
            bugs.append(bug)
    numbers = [bug["number"] for bug in bugs]
    if len(set(numbers)) != len(numbers) or 0 in numbers or NULL_PLANT in numbers:
        sys.exit("planted: numbers must be unique and not zero")
    return bugs


def make_copy(bugs: list[dict]) -> None:
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True)
    wanted: dict[str, str] = {}
    for name in listed.stdout.splitlines():
        source = ROOT / name
        if source.is_file():
            wanted[name] = ""
    texts: dict[str, str] = {}
    for bug in bugs:
        for edit in bug["edit"]:
            name = edit["file"]
            text = texts.get(name) or (ROOT / name).read_text()
            find = edit["find"].strip("\n")
            if text.count(find) != 1:
                sys.exit(f"planted: bug {bug['number']}: its text stands {text.count(find)} times in {name}:\n{find}")
            texts[name] = text.replace(find, edit["replace"].strip("\n"))
    for name, text in texts.items():
        at = text.index("#pragma once") + len("#pragma once\n") if "#pragma once" in text else 0
        texts[name] = text[:at] + '#include "planted.h"\n' + text[at:]
    texts["src/planted.h"] = HEADER
    # Only what differs is written, so that the copy builds incrementally.
    for name in sorted(set(wanted) | set(texts)):
        target = COPY / name
        target.parent.mkdir(parents=True, exist_ok=True)
        content = texts[name].encode() if name in texts else (ROOT / name).read_bytes()
        if not target.exists() or target.read_bytes() != content:
            target.write_bytes(content)
        if name not in texts:
            shutil.copymode(ROOT / name, target)
    for path in sorted(COPY.rglob("*")):
        if path.is_file() and path.relative_to(COPY).as_posix() not in wanted and path.name != "planted.h":
            path.unlink()


def build(targets: set[str], jobs: int) -> None:
    subprocess.run(["cmake", "--preset", "release", "-B", str(BUILD)], cwd=COPY, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["cmake", "--build", str(BUILD), "-j", str(jobs), "--target", *sorted(targets)], cwd=COPY, check=True,
                   stdout=subprocess.DEVNULL)


def run(finder: str, number: int) -> tuple[str, float]:
    """"failed" if the finder fails, as it must with a bug; "passed"; or "timed out", which shows nothing by itself."""
    begin = time.monotonic()
    environment = os.environ | {"CONCLAVE_PLANTED": str(number)}
    try:
        program, *words = finder.split()
        result = subprocess.run([str(BUILD / program), *words], cwd=BUILD, env=environment, capture_output=True, timeout=1800)
        outcome = "failed" if result.returncode != 0 else "passed"
    except subprocess.TimeoutExpired:
        outcome = "timed out"
    return outcome, time.monotonic() - begin


def seeds_needed(suite: str, number: int, most: int) -> int | None:
    """The first seed of random simulation that finds the bug; None if none up to `most` does."""
    environment = os.environ | {"CONCLAVE_PLANTED": str(number)}
    for first in range(1, most + 1, 10):
        last = min(first + 9, most)
        command = [str(BUILD / "simulate"), suite, "--seeds", f"{first}-{last}", "--seconds", "30", "--jobs", "1"]
        result = subprocess.run(command, cwd=BUILD, env=environment, capture_output=True, text=True, timeout=1800)
        failed = [int(line.split()[1]) for line in result.stdout.splitlines() if line.startswith("  seed ")]
        if result.returncode != 0:
            return min(failed) if failed else last
    return None


def tell_seeds_needed(bugs: list[dict], suite: str, most: int, pool: concurrent.futures.ThreadPoolExecutor) -> int:
    if seeds_needed(suite, NULL_PLANT, most) is not None:
        print("NOT SOUND  the simulation fails with a null plant")
        return 1
    for bug, seeds in zip(bugs, pool.map(lambda bug: seeds_needed(suite, bug["number"], most), bugs)):
        print(f"{'-' if seeds is None else seeds:>5}  {bug['number']:4}  {bug['name']}", flush=True)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only", help="one group: the name of a file in tests/planted")
    parser.add_argument("--bug", type=int, help="one bug")
    parser.add_argument("--seeds-needed", metavar="SUITE", help="instead: the first seed of this suite that finds each bug")
    parser.add_argument("--most", type=int, default=200, help="seeds tried for that")
    arguments = parser.parse_args()
    bugs = load(arguments.only)
    make_copy(bugs)
    if arguments.bug:
        bugs = [bug for bug in bugs if bug["number"] == arguments.bug]
    if arguments.seeds_needed:
        build({"simulate"}, arguments.jobs)
        with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
            return tell_seeds_needed(bugs, arguments.seeds_needed, arguments.most, pool)
    finders = sorted({bug["finder"] for bug in bugs})
    build({finder.split()[0] for finder in finders}, arguments.jobs)
    bad = 0
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for number in (0, NULL_PLANT):
            for finder, (outcome, _) in zip(finders, pool.map(lambda f: run(f, number), finders)):
                if outcome != "passed":
                    bad += 1
                    print(f"NOT SOUND  {finder}: {outcome} with {'no' if number == 0 else 'a null'} plant")
        found = 0
        for bug, (outcome, seconds) in zip(bugs, pool.map(lambda b: run(b["finder"], b["number"]), bugs)):
            # A bug whose effect is that nothing ends says so; of any other, a finder that hangs proves nothing.
            hangs = outcome == "timed out" and bug.get("finder_may_hang", False)
            is_found = outcome == "failed" or hangs
            found += is_found
            verdict = "found" if is_found else "TIMED OUT" if outcome == "timed out" else "NOT FOUND"
            print(f"{verdict:9}  {bug['number']:4}  {bug['name']}  by {bug['finder']}  ({seconds:.1f} s)", flush=True)
    print(f"{len(bugs)} planted, {found} found")
    return 0 if found == len(bugs) and not bad else 1


if __name__ == "__main__":
    sys.exit(main())
