#!/usr/bin/python3
"""Every command shown in the README and in docs/ works: runs each line of each ```sh block.

Commands that build, run all tests or run for long are taken apart: of `make TARGET` the recipe must exist and its tools too;
`make demo` runs its script. Run from a tree whose release preset is built.
"""
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def commands() -> list[tuple[str, str]]:
    found = []
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for block in re.findall(r"```sh\n(.*?)```", path.read_text(), re.S):
            for line in block.splitlines():
                line = line.split("  #")[0].strip()
                if line and not line.startswith("#"):
                    found.append((path.relative_to(ROOT).as_posix(), line))
    return found


def run(command: str) -> subprocess.CompletedProcess:
    return subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=600)


def main() -> int:
    failures = 0
    all_commands = commands()
    if len(all_commands) < 4:
        print("docs: too few commands found, the check is broken")
        return 1
    for where, command in all_commands:
        # These two rewrite or rebuild; the rest runs as it stands.
        if command.startswith("make demo"):
            result = run("tools/demo.sh")
        elif command.startswith("make "):
            result = run(command.replace("make ", "make -n ", 1))
        elif "CONCLAVE_REWRITE" in command:
            result = run(command.replace("CONCLAVE_REWRITE=1 ", ""))
        elif command.startswith("CONCLAVE_PLANTED="):
            # The copy with the bugs is not built by a check-in: the program and its options must be there.
            options = [word for word in command.split() if word.startswith("--")]
            result = run("build/release/simulate --help")
            if any(option not in result.stdout for option in options):
                result.returncode = 1
        elif command.startswith("tools/planted.py"):
            result = run("tools/planted.py --help")
        else:
            result = run(command)
        good = result.returncode == 0
        failures += not good
        print(f"{'ok' if good else 'FAILED'}  {where}: {command}")
        if not good:
            print(result.stdout[-2000:] + result.stderr[-2000:])
    return 1 if failures else 0


if __name__ == "__main__":
    os.environ.setdefault("LC_ALL", "C.UTF-8")
    sys.exit(main())
