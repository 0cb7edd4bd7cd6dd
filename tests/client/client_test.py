#!/usr/bin/python3
"""The client library against real servers: processes that are stopped, killed, and whose servers are.

client_test.py --holder BINARY [--conclave BINARY] [unittest's arguments]
"""
import argparse
import signal
import sys
import time
import unittest

import programs
from programs import cluster
import suite

def boot_clock():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Holders(suite.Clustered, unittest.TestCase):
    def holder(self, ttl_ms):
        tls = self.cluster.client_arguments()[1::2]  # without the names of the options
        return programs.Program(self, suite.OPTIONS.holder, self.cluster.endpoints, self.key("lock"), str(ttl_ms), *tls)

    @staticmethod
    def writes(holder):
        """(when it began, what was believed, what came of it)"""
        found = [line.split() for line in holder.lines if line.startswith("write ")]
        return [(int(began), held, became) for _, began, held, became in found]


class OneServer(Holders):
    def test_a_holder_that_was_stopped_does_nothing_when_it_goes_on(self):
        ttl_ms = 1000
        first = self.holder(ttl_ms)
        first_token = int(first.wait_line("token").split()[1])
        first.wait_line("write", 5)
        first.signal(signal.SIGSTOP)
        stopped = boot_clock()
        second = self.holder(ttl_ms)
        second_token = int(second.wait_line("token").split()[1])
        self.assertGreater(second_token, first_token)
        cluster.wait_until("twice the TTL is over", lambda: boot_clock() >= stopped + 2 * ttl_ms * 1_000_000, programs.LIMIT)
        going_on = boot_clock()
        first.signal(signal.SIGCONT)
        self.assertEqual(first.wait_line("end"), "end already lost")
        self.assertEqual(first.end(), 0)
        late = [write for write in self.writes(first) if write[0] >= going_on]
        self.assertEqual([write for write in late if write[2] == "ok" or write[1] == "held"], [])
        self.assertGreater(len([write for write in self.writes(first) if write[2] == "ok"]), 3)
        second.wait_line("write", 5)

    def test_what_a_dead_process_held_is_free_after_its_ttl(self):
        first = self.holder(1000)
        first.wait_line("token")
        first.signal(signal.SIGKILL)
        begin = time.monotonic()
        second = self.holder(1000)
        second.wait_line("token")
        self.assertLess(time.monotonic() - begin, 30)


class OneServerTls(Holders):
    TLS = True

    def test_a_holder_writes(self):
        holder = self.holder(10_000)
        holder.wait_line("write", 3)
        self.assertEqual({(held, became) for _, held, became in self.writes(holder)}, {("held", "ok")})


class ThreeServers(Holders):
    NODES = 3

    def test_a_holder_survives_the_leader(self):
        holder = self.holder(10_000)
        holder.wait_line("write", 3)
        leader = self.cluster.leader()
        leader.kill()
        killed = boot_clock()
        cluster.wait_until("it writes again",
                           lambda: any(began > killed and became == "ok" for began, _, became in self.writes(holder)),
                           programs.LIMIT)
        self.assertEqual([line for line in holder.lines if line.startswith("end")], [])
        leader.start()
        self.cluster.wait_healthy()

    def test_each_server_may_be_restarted_under_a_holder(self):
        holder = self.holder(10_000)
        holder.wait_line("write", 3)
        for server in self.cluster.servers:
            server.kill()
            server.start()
            self.cluster.wait_healthy()
            since = boot_clock()
            cluster.wait_until("it writes",
                               lambda at=since: any(began > at and became == "ok" for began, _, became in self.writes(holder)),
                               programs.LIMIT)
        self.assertEqual([line for line in holder.lines if line.startswith("end")], [])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cluster.add_arguments(parser)
    parser.add_argument("--holder", required=True, help="the binary of holder.cc")
    suite.OPTIONS, rest = parser.parse_known_args()
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)


if __name__ == "__main__":
    main()
