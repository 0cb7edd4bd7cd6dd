#!/usr/bin/python3
"""Keeps the arrows between folders true.

Reads the includes of every source file and compares them with the table below (docs/internals/architecture.md). Prints
each include that goes against an arrow and exits with 1. `--root DIR` checks another tree (its own test does that).
"""
import argparse
import pathlib
import re
import sys

# Folder -> folders it may include, besides itself. `env/posix` is where the real world begins: only those listed see it.
ALLOWED = {
    "base": set(),
    "env": {"base"},
    "raft": {"base"},
    "keyspace": {"base", "proto"},
    "wal": {"base", "env"},
    "layers": {"base", "keyspace", "proto"},
    "node": {"base", "env", "raft", "keyspace", "wal", "layers"},
    "net": {"base", "env"},
    "api": {"base", "env", "keyspace", "layers", "net", "node", "proto"},
    "client": {"base", "env", "env/posix", "net", "proto"},
    "server": {"base", "env", "env/posix", "raft", "keyspace", "wal", "layers", "node", "net", "api", "proto"},
    "cli": {"base", "env", "env/posix", "wal", "net", "client", "server", "proto"},
    "sim": {"base", "env", "raft", "keyspace", "wal", "layers", "node", "api", "client", "proto"},
}
KNOWN = set(ALLOWED) | {"proto"}
# The core: owns no clock, socket, thread or randomness of the world.
PURE = {"base", "raft", "keyspace", "wal", "layers", "node"}
# And of rooms with IO what the simulator runs too.
PURE_FILES = {"client/session_core.h", "client/session_core.cc"}
FORBIDDEN_IN_CORE = re.compile(
    r"#\s*include\s*<(thread|mutex|condition_variable|future|random|unistd\.h|sys/socket\.h|sys/epoll\.h|time\.h|ctime)>"
    r"|\b(steady_clock|system_clock)::now\b|\brandom_device\b|\bgetenv\b"
)
INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)')


def folder_of(path: pathlib.PurePosixPath, root: pathlib.Path | None = None) -> str:
    parts = path.parts
    if parts[0] == "conclave" and len(parts) == 2:
        return "client"  # its public face; proto/conclave has directories of versions
    if root is not None and (root / "proto" / parts[0]).is_dir():
        return "proto"  # generated from there
    if parts[0] == "env" and len(parts) > 2 and parts[1] == "posix":
        return "env/posix"
    return parts[0]


def check(root: pathlib.Path) -> list[str]:
    problems = []
    roots = [(root / "src", True), (root / "sim", False)]
    for base, is_src in roots:
        for path in sorted(base.rglob("*")):
            if path.suffix not in (".cc", ".h"):
                continue
            relative = pathlib.PurePosixPath(path.relative_to(base if is_src else root).as_posix())
            folder = folder_of(relative)
            own = "env" if folder == "env/posix" else folder
            is_test = path.name.endswith("_test.cc") or "testing" in path.parts
            allowed = ALLOWED.get(own)
            if allowed is None:
                problems.append(f"{path.relative_to(root)}: folder {own} is not in the table of {pathlib.Path(__file__).name}")
                continue
            text = path.read_text()
            for number, line in enumerate(text.splitlines(), 1):
                where = f"{path.relative_to(root)}:{number}"
                is_pure = own in PURE or relative.as_posix() in PURE_FILES
                if is_pure and not is_test and FORBIDDEN_IN_CORE.search(line.split("//")[0]):
                    problems.append(f"{where}: the core owns no clock, thread, socket or randomness: {line.strip()}")
                match = INCLUDE.match(line)
                if not match:
                    continue
                included = match.group(1) or match.group(2)
                target = folder_of(pathlib.PurePosixPath(included), root)
                # In angle brackets our own headers are found as well as other people's.
                if match.group(2) and target.partition("/")[0] not in KNOWN:
                    continue
                if target == own or target == folder or target in allowed:
                    continue
                if target == "env/posix" and own == "env":
                    continue
                # A test may use the real world below it, never what stands above.
                if is_test and target == "env/posix" and "env" in allowed:
                    continue
                problems.append(f"{where}: {own} may not include {target} ({included})")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent.parent)
    problems = check(parser.parse_args().root)
    for problem in problems:
        print(problem)
    if not problems:
        print("dependencies: every include follows the arrows")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
