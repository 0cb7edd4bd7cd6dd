#!/usr/bin/python3
"""The client library as others get it: installed into a directory of its own, found by CMake and by pkg-config, its
headers without anything beside the standard library, and the examples built against it and run against real servers.

install_test.py --build DIRECTORY [--conclave BINARY] [unittest's arguments]
"""
import argparse
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
import urllib.error
import urllib.request

import programs
from programs import cluster

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = {"session": "session.cc", "lock": "lock.cc", "election": "election.cc", "fencing_writer": "fencing/writer.cc"}
OPTIONS = None
STALE = 3


def run(*command, **more):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=600, check=False, **more)
    if done.returncode != 0:
        raise AssertionError(f"{command}: {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


class Installed(unittest.TestCase):
    """What is installed, and one server that the programs meet."""

    @classmethod
    def setUpClass(cls):
        cls.directory = pathlib.Path(tempfile.mkdtemp(prefix="conclave-client-"))
        cls.addClassCleanup(shutil.rmtree, cls.directory, True)
        cls.prefix = cls.directory / "prefix"
        run("cmake", "--install", OPTIONS.build, "--component", "client", "--prefix", cls.prefix)
        # Outside of the tree, so that nothing is found by accident.
        shutil.copytree(ROOT / "examples", cls.directory / "examples")
        cls.programs = cls.directory / "programs"
        cls.build_programs()
        cls.cluster = cluster.make(OPTIONS, 1)
        cls.addClassCleanup(cls.cluster.close)
        cls.cluster.start()

    @classmethod
    def build_programs(cls):
        run("cmake", "-S", cls.directory / "examples", "-B", cls.programs, "-G", "Ninja",
            f"-DCMAKE_PREFIX_PATH={cls.prefix}", f"-DCMAKE_CXX_COMPILER={OPTIONS.compiler}")
        run("cmake", "--build", cls.programs, "-j", "2")

    def start(self, name, *arguments):
        return programs.Program(self, self.programs / name, *arguments)


class ByCMake(Installed):
    def test_the_session(self):
        out = run(self.programs / "session", self.cluster.endpoints)
        self.assertIn("state: safe", out)
        self.assertIn("hosts/example = here", out)
        self.assertIn("after closing: gone", out)

    def test_the_lock(self):
        counters = [self.start("lock", self.cluster.endpoints, "20") for _ in range(4)]
        self.assertEqual([each.end() for each in counters], [0] * 4)
        counts = sorted(int(line.split()[-1]) for each in counters for line in each.lines)
        self.assertEqual(counts, list(range(1, 81)))

    def test_the_election(self):
        observer = self.start("election", self.cluster.endpoints, "chief")
        observer.wait_line("nobody leads")
        first = self.start("election", self.cluster.endpoints, "chief", "1")
        first_token = int(first.wait_line("leading").split()[-1])
        second = self.start("election", self.cluster.endpoints, "chief", "2")
        observer.wait_line(f"host {first.process.pid}, at work leads")
        first.say("")
        self.assertEqual(first.end(), 0)
        self.assertGreater(int(second.wait_line("leading").split()[-1]), first_token)
        observer.wait_line(f"host {second.process.pid}, at work leads")
        second.say("")
        second.wait_line("leading", 2)
        second.say("")
        self.assertEqual(second.end(), 0)
        observer.process.stdin.close()
        self.assertEqual(observer.process.wait(timeout=programs.LIMIT), 0)

    def check_fencing(self, kind, where):
        """A writer that stands still until another has written comes too late; the one before it did not."""
        first = self.start("fencing_writer", self.cluster.endpoints, kind, where, "first")
        first.wait_line("token")
        first.signal(signal.SIGSTOP)
        second = self.start("fencing_writer", self.cluster.endpoints, kind, where, "it's the second")
        second.wait_line("token")
        second.say("")
        self.assertEqual(second.end(), 0, second.lines)
        self.assertIn("the lock: released", second.lines)
        first.signal(signal.SIGCONT)
        first.say("")
        self.assertEqual(first.end(), STALE, first.lines)
        self.assertIn("refused: the token is stale", first.lines)
        self.assertIn("the lock: already lost", first.lines)
        return int(second.wait_line("token").split()[1])

    def test_a_file_that_checks_tokens(self):
        path = self.directory / "report"
        token = self.check_fencing("file", path)
        self.assertEqual(path.read_text(), f"{token}\nit's the second\n")

    def test_a_row_that_checks_tokens(self):
        database = self.directory / "report.db"
        with open(self.directory / "examples/fencing/row.sql") as sql:
            run("sqlite3", database, stdin=sql)
        token = self.check_fencing("sql", database)
        self.assertEqual(run("sqlite3", database, "SELECT token, text FROM report"), f"{token}|it's the second\n")

    def test_an_http_resource_that_checks_tokens(self):
        resource = programs.Program(self, "/usr/bin/python3", self.directory / "examples/fencing/resource.py", "0")
        port = resource.wait_line("").strip()
        token = self.check_fencing("http", port)
        url = f"http://127.0.0.1:{port}/report"
        with urllib.request.urlopen(url, timeout=30) as answer:
            self.assertEqual(answer.read().decode(), f"{token}\nit's the second\n")
        with self.assertRaises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(url, data=b"without a token", method="PUT"), timeout=30)
        self.assertEqual(refused.exception.code, 428)
        refused.exception.close()


class ByPkgConfig(Installed):
    @classmethod
    def build_programs(cls):
        cls.programs.mkdir()
        # Wherever the prefix's library directory is.
        found = next(cls.prefix.rglob("conclave-client.pc")).parent
        environment = {"PATH": "/usr/bin:/bin", "PKG_CONFIG_PATH": str(found)}
        flags = run("pkg-config", "--cflags", "conclave-client", env=environment).split()
        libraries = run("pkg-config", "--libs", "conclave-client", env=environment).split()
        for name, source in EXAMPLES.items():
            run(OPTIONS.compiler, "-std=c++23", "-Wall", "-Wextra", "-Werror", *flags,
                cls.directory / "examples" / source, "-o", cls.programs / name, *libraries)

    def test_headers_stand_alone(self):
        include = self.prefix / "include"
        headers = sorted((include / "conclave").glob("*.h"))
        self.assertGreater(len(headers), 5)
        for header in headers:
            with self.subTest(header=header.name):
                # The standard library and each other are all they need.
                done = subprocess.run([OPTIONS.compiler, "-std=c++23", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-M",
                                       f"-I{include}", "-x", "c++", str(header)], capture_output=True, text=True,
                                      timeout=120, check=False)
                self.assertEqual(done.returncode, 0, done.stderr)
                for needed in ("google/protobuf", "fmt/", "asio", "nghttp2", "openssl"):
                    self.assertNotIn(needed, done.stdout)

    def test_the_programs_run(self):
        self.assertIn("after closing: gone", run(self.programs / "session", self.cluster.endpoints))
        self.assertEqual(len(run(self.programs / "lock", self.cluster.endpoints, "3").splitlines()), 3)


def main():
    global OPTIONS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cluster.add_arguments(parser)
    parser.add_argument("--build", default=ROOT / "build/release", help="the build directory that is installed from")
    parser.add_argument("--compiler", default="g++")
    OPTIONS, rest = parser.parse_known_args()
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)


if __name__ == "__main__":
    main()
