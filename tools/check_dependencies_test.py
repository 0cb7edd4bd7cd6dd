#!/usr/bin/python3
"""The dependency check must fail when an arrow is broken, and only then."""
import pathlib
import tempfile
import unittest

import check_dependencies


class CheckDependenciesTest(unittest.TestCase):
    def problems(self, files: dict[str, str]) -> list[str]:
        with tempfile.TemporaryDirectory() as directory:
            root = pathlib.Path(directory)
            (root / "src").mkdir()
            (root / "sim").mkdir()
            for name, text in files.items():
                path = root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            return check_dependencies.check(root)

    def test_follows_the_arrows(self):
        self.assertEqual([], self.problems({
            "src/raft/raft.cc": '#include "raft/raft.h"\n#include "base/types.h"\n#include <vector>\n',
            "sim/world.cc": '#include "sim/world.h"\n#include "raft/raft.h"\n',
            "src/env/posix/disk.cc": '#include "env/disk.h"\n#include "base/error.h"\n#include <unistd.h>\n',
        }))

    def test_raft_includes_nothing_but_base(self):
        for other in ("env/disk.h", "wal/log.h", "keyspace/keyspace.h", "node/node.h", "sim/world.h"):
            found = self.problems({"src/raft/raft.cc": f'#include "{other}"\n'})
            self.assertEqual(1, len(found), other)
            self.assertIn("src/raft/raft.cc:1", found[0])

    def test_angle_brackets_are_no_way_around_an_arrow(self):
        for other in ("wal/log.h", "sim/world.h", "env/posix/disk.h"):
            self.assertEqual(1, len(self.problems({"src/raft/raft.cc": f"#include <{other}>\n"})), other)
        self.assertEqual([], self.problems({"src/raft/raft.cc": "#include <base/types.h>\n#include <sys/types.h>\n"}))

    def test_nothing_includes_sim_and_only_the_edge_is_real(self):
        self.assertEqual(1, len(self.problems({"src/server/main.cc": '#include "sim/world.h"\n'})))
        self.assertEqual(1, len(self.problems({"src/wal/log.cc": '#include "env/posix/disk.h"\n'})))
        self.assertEqual([], self.problems({"src/wal/log_test.cc": '#include "env/posix/disk.h"\n'}))

    def test_the_core_owns_no_clock(self):
        self.assertEqual(1, len(self.problems({"src/raft/raft.cc": "auto t = std::chrono::steady_clock::now();\n"})))
        self.assertEqual(1, len(self.problems({"src/keyspace/a.cc": "#include <thread>\n"})))
        self.assertEqual([], self.problems({"src/raft/raft.cc": "// never steady_clock::now()\n"}))
        self.assertEqual(1, len(self.problems({"src/client/session_core.cc": "#include <mutex>\n"})))
        self.assertEqual([], self.problems({"src/client/io.cc": "#include <mutex>\n"}))

    def test_an_unknown_folder_is_a_problem(self):
        self.assertEqual(1, len(self.problems({"src/utils/a.cc": "\n"})))


if __name__ == "__main__":
    unittest.main()
