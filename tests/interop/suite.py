"""What the programs of unittest share: a cluster for each class, a key prefix for each test, a leader that is killed, and the
program around the suites. Client programs in other languages are driven by driven.py.
"""
import sys
import time
import unittest

import cluster

OPTIONS = None  # of the command line
LIMIT = 30


class Clustered:
    """One cluster for all tests of a class. Beside unittest.TestCase among the bases of what is run."""

    NODES = 1
    TLS = False

    @classmethod
    def setUpClass(cls):
        cls.cluster = cluster.make(OPTIONS, cls.NODES, tls=cls.TLS)
        try:
            cls.cluster.start()
        except BaseException:
            cls.cluster.close()
            raise

    @classmethod
    def tearDownClass(cls):
        cls.cluster.close()

    def setUp(self):
        self.prefix = self.id().rpartition(".")[2] + "/"

    def key(self, name):
        return self.prefix + name

    def kill_leader(self):
        """kill -9; it is back after the test."""
        leader = self.cluster.leader()
        leader.kill()

        def back():
            leader.start()
            self.cluster.wait_healthy()

        self.addCleanup(back)
        return leader


def main(description):
    """Ends this process: 0 where every test passed."""
    global OPTIONS
    OPTIONS, rest = cluster.parse_known(description)
    begin = time.monotonic()
    program = unittest.main(argv=[sys.argv[0], *rest], exit=False, verbosity=2)
    print(f"{OPTIONS.system}: {program.result.testsRun} tests in {time.monotonic() - begin:.0f} s")
    sys.exit(0 if program.result.wasSuccessful() else 1)
