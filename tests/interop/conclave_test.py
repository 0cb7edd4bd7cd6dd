#!/usr/bin/python3
"""The command line `conclave`, against one server and three: what it prints, its exit codes, and what becomes of a
command under a lock when sessions, servers or the wrapper itself end.

conclave_test.py [--system conclave|etcd] [--conclave BINARY] [unittest's arguments]
"""
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time
import unittest

import cluster
import suite

LIMIT = suite.LIMIT

NOT_FOUND, USAGE, UNAVAILABLE, NOT_ACQUIRED, LOST = 1, 64, 69, 75, 76


def alive(pid):
    """Whether the process exists and is not a zombie."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        # Where /proc is not mounted everything would seem to be dead.
        assert pathlib.Path("/proc/self/stat").exists(), "/proc is needed"
        return False


class Cli(suite.Clustered, unittest.TestCase):
    def setUp(self):
        super().setUp()
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)

    def environment(self):
        return {**os.environ, "CONCLAVE_ENDPOINTS": self.cluster.endpoints}

    def cli(self, *arguments, code=0, stdin=None):
        done = subprocess.run([suite.OPTIONS.conclave, *arguments], capture_output=True, text=True, timeout=LIMIT,
                              input=stdin, stdin=subprocess.DEVNULL if stdin is None else None,
                              env=self.environment(), check=False)
        if code is not None:
            self.assertEqual(done.returncode, code, f"conclave {arguments}: {done.stdout}{done.stderr}")
        return done

    def out(self, *arguments, **more):
        return self.cli(*arguments, **more).stdout

    def start(self, *arguments, stdin=subprocess.DEVNULL):
        process = subprocess.Popen([suite.OPTIONS.conclave, *arguments], stdin=stdin, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True, env=self.environment(),
                                   preexec_fn=cluster.end_with_parent)

        def end():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait(timeout=LIMIT)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    stream.close()

        self.addCleanup(end)
        return process

    def file(self, name):
        return pathlib.Path(self.directory.name) / name

    def wait_file(self, name):
        path = self.file(name)
        return cluster.wait_until(f"{name} is written", lambda: path.exists() and path.read_text().endswith("\n")
                                  and path.read_text().strip(), LIMIT)

    def claims(self, name):
        return json.loads(self.cli("kv", "get", name + "/", "--prefix", "-o", "json", code=None).stdout)["kvs"]

    def wait_claims(self, name, count):
        return cluster.wait_until(f"{count} claims on {name}", lambda: (self.claims(name),) if len(self.claims(name)) == count
                                  else None, LIMIT)[0]


class KeyValues(Cli):
    def test_put_get_delete(self):
        key = self.prefix + "k"
        self.cli("kv", "get", key, code=NOT_FOUND)
        first = int(self.out("kv", "put", key, "one", "-o", "value"))
        self.assertEqual(self.out("kv", "get", key), "one\n")
        second = json.loads(self.out("kv", "put", key, "two", "-o", "json"))
        self.assertGreater(int(second["revision"]), first)
        self.assertEqual(self.out("kv", "get", key, "--revision", str(first)), "one\n")
        answer = json.loads(self.out("kv", "get", key, "-o", "json"))
        self.assertEqual(answer["kvs"], [{"key": key, "value": "two", "create_revision": str(first),
                                          "mod_revision": second["revision"], "version": "2"}])
        self.assertEqual(self.out("kv", "del", key, "-o", "value"), "1\n")
        self.assertEqual(self.out("kv", "del", key, code=NOT_FOUND), "deleted 0\n")

    def test_value_from_standard_input(self):
        key = self.prefix + "k"
        self.cli("kv", "put", key, "-", stdin="line\nline\n")
        self.assertEqual(self.out("kv", "get", key), "line\nline\n\n")

    def test_list(self):
        for name in "cab":
            self.cli("kv", "put", self.prefix + name, name)
        self.assertEqual(self.out("kv", "ls", self.prefix, "-o", "value").split(), [self.prefix + n for n in "abc"])
        table = self.out("kv", "ls", self.prefix).splitlines()
        self.assertTrue(table[0].startswith("KEY "))
        self.assertEqual(len(table), 4)
        self.assertEqual(self.out("kv", "get", self.prefix, "--prefix", "--limit", "2"), "a\nb\n")
        self.cli("kv", "ls", self.prefix + "nothing", code=NOT_FOUND)
        self.assertEqual(self.out("kv", "del", self.prefix, "--prefix"), "deleted 3\n")

    def test_refusals(self):
        self.cli("kv", "put", "", "v", code=USAGE)
        self.cli("kv", "get", "k", "--revision", "1000000000", code=NOT_FOUND)
        self.cli("kv", "put", "k", "v", "--lease", "12345", code=NOT_FOUND)

    def test_watch(self):
        key = self.prefix + "k"
        first = int(self.out("kv", "put", key, "one", "-o", "value"))
        self.cli("kv", "put", key, "two")
        self.cli("kv", "del", key)
        lines = self.out("kv", "watch", self.prefix, "--prefix", "--revision", str(first), "--count", "3", "-o", "json")
        events = [json.loads(line) for line in lines.splitlines()]
        self.assertEqual([(e["event"], e["kv"]["value"]) for e in events], [("put", "one"), ("put", "two"), ("delete", "")])
        watch = self.start("kv", "watch", key, "--revision", str(first))
        for expected in ("put     ", "put     ", "delete  "):
            self.assertIn(expected, watch.stdout.readline())
        watch.send_signal(signal.SIGTERM)
        self.assertEqual(watch.wait(timeout=LIMIT), 0)


class Locks(Cli):
    def test_runs_and_returns_the_code(self):
        out = self.out("lock", self.prefix, "--", "sh", "-c",
                       "echo $CONCLAVE_TOKEN $CONCLAVE_RESOURCE $CONCLAVE_SESSION $CONCLAVE_DEADLINE_MS; exit 5", code=5)
        token, resource, session, deadline = out.split()
        self.assertGreater(int(token), 0)
        self.assertEqual(resource, self.prefix)
        self.assertGreater(int(session, 16), 0)
        left = int(deadline) / 1000 - time.clock_gettime(time.CLOCK_BOOTTIME)
        self.assertTrue(5 < left <= 15, left)
        self.assertEqual(self.claims(self.prefix), [])
        self.cli("lock", self.prefix, "--", "sh", "-c", "kill -9 $$", code=128 + 9)
        self.cli("lock", self.prefix, "--", "/nonexistent", code=127)
        self.cli("lock", self.prefix, "--", "/dev/null", code=126)
        self.assertEqual(self.claims(self.prefix), [])

    def test_tokens_grow(self):
        tokens = [int(self.out("lock", self.prefix)) for _ in range(3)]
        self.assertEqual(tokens, sorted(set(tokens)))

    def test_excludes(self):
        holder = self.start("lock", self.prefix, stdin=subprocess.PIPE)
        first = int(holder.stdout.readline())
        self.cli("lock", self.prefix, "--try", "--", "true", code=NOT_ACQUIRED)
        self.cli("lock", self.prefix, "--wait", "200ms", "-E", "9", "--", "true", code=9)
        self.assertEqual(len(self.claims(self.prefix)), 1)
        waiter = self.start("lock", self.prefix, "--wait", "30s", "--", "sh", "-c", "echo $CONCLAVE_TOKEN")
        self.wait_claims(self.prefix, 2)
        self.assertIsNone(waiter.poll())
        holder.stdin.close()
        self.assertEqual(holder.wait(timeout=LIMIT), 0)
        self.assertGreater(int(waiter.stdout.readline()), first)
        self.assertEqual(waiter.wait(timeout=LIMIT), 0)

    def test_many_take_turns(self):
        """A counter that is read, and written after a pause, loses nothing under the lock."""
        counter = self.file("counter")
        counter.write_text("0\n")
        script = f"n=$(cat {counter}); sleep 0.02; echo $((n + 1)) > {counter}"
        workers = [self.start("lock", self.prefix, "--", "sh", "-c", script) for _ in range(8)]
        for worker in workers:
            self.assertEqual(worker.wait(timeout=60), 0)
        self.assertEqual(counter.read_text(), "8\n")

    def test_excludes_etcdctl(self):
        holder = self.start("lock", self.prefix, stdin=subprocess.PIPE)
        holder.stdout.readline()
        other = subprocess.Popen(["etcdctl", "--endpoints", self.cluster.endpoints, "lock", self.prefix, "--", "echo", "ran"],
                                 stdout=subprocess.PIPE, text=True, preexec_fn=cluster.end_with_parent,
                                 env={**os.environ, "ETCDCTL_API": "3"})
        self.addCleanup(lambda: (other.poll() is None and other.kill(), other.wait(), other.stdout.close()))
        self.wait_claims(self.prefix, 2)
        self.assertIsNone(other.poll())
        holder.stdin.close()
        self.assertEqual(other.wait(timeout=LIMIT), 0)
        self.assertEqual(other.stdout.read(), "ran\n")

    def test_waiter_gives_up_on_a_signal(self):
        holder = self.start("lock", self.prefix, stdin=subprocess.PIPE)
        holder.stdout.readline()
        waiter = self.start("lock", self.prefix, "--", "true")
        self.wait_claims(self.prefix, 2)
        waiter.send_signal(signal.SIGTERM)
        self.assertEqual(waiter.wait(timeout=LIMIT), 128 + signal.SIGTERM)
        self.assertEqual(len(self.claims(self.prefix)), 1)

    def test_signals_are_forwarded(self):
        log = self.file("log")
        lock = self.start("lock", self.prefix, "--", "sh", "-c",
                          f"trap 'echo usr1 >> {log}' USR1; trap 'echo term >> {log}; exit 3' TERM; echo on >> {log};"
                          "while :; do sleep 0.01; done")
        self.wait_file("log")
        lock.send_signal(signal.SIGUSR1)
        cluster.wait_until("USR1 arrived", lambda: "usr1" in log.read_text(), LIMIT)
        lock.send_signal(signal.SIGTERM)
        self.assertEqual(lock.wait(timeout=LIMIT), 3)
        self.assertEqual(log.read_text(), "on\nusr1\nterm\n")
        self.assertEqual(self.claims(self.prefix), [])

    def test_what_the_command_left_ends_before_the_release(self):
        lock = self.start("lock", self.prefix, "--", "sh", "-c", f"sleep 1000 > /dev/null 2>&1 & echo $! > {self.file('pid')}")
        self.assertEqual(lock.wait(timeout=LIMIT), 0)
        self.assertFalse(alive(int(self.wait_file("pid"))))

    def test_killed_wrapper_takes_the_command_along(self):
        lock = self.start("lock", self.prefix, "--ttl", "2s", "--", "sh", "-c",
                          f"sh -c 'echo $$ > {self.file('inner')}; exec sleep 1000' & echo $$ > {self.file('pid')}; wait")
        pids = [int(self.wait_file("pid")), int(self.wait_file("inner"))]
        lock.kill()
        cluster.wait_until("the command is gone", lambda: not any(alive(pid) for pid in pids), LIMIT)

    def lost(self, end_it):
        """A command that ignores SIGTERM is killed; 76, and nothing of it is left."""
        lock = self.start("lock", self.prefix, "--ttl", "4s", "--", "sh", "-c",
                          f"trap '' TERM; echo $$ > {self.file('pid')}; while :; do sleep 0.01; done")
        pid = int(self.wait_file("pid"))
        end_it(self.wait_claims(self.prefix, 1)[0])
        self.assertEqual(lock.wait(timeout=LIMIT), LOST)
        self.assertFalse(alive(pid))

    def etcdctl(self, *arguments):
        subprocess.run(["etcdctl", "--endpoints", self.cluster.endpoints, *arguments], check=True, timeout=LIMIT,
                       capture_output=True, env={**os.environ, "ETCDCTL_API": "3"})

    def test_lost_with_the_lease(self):
        self.lost(lambda claim: self.etcdctl("lease", "revoke", claim["lease"]))

    def test_lost_with_the_claim(self):
        self.lost(lambda claim: self.cli("kv", "del", claim["key"]))

    def test_lost_while_holding(self):
        holder = self.start("lock", self.prefix, stdin=subprocess.PIPE)
        holder.stdout.readline()
        self.etcdctl("lease", "revoke", self.wait_claims(self.prefix, 1)[0]["lease"])
        self.assertEqual(holder.wait(timeout=LIMIT), LOST)

    def test_stopped_wrapper_still_ends_the_command_in_time(self):
        lock = self.start("lock", self.prefix, "--ttl", "3s", "--", "sh", "-c",
                          f"trap '' TERM; echo $$ > {self.file('pid')}; while :; do sleep 0.01; done")
        pid = int(self.wait_file("pid"))
        lock.send_signal(signal.SIGSTOP)
        cluster.wait_until("the command is gone", lambda: not alive(pid), LIMIT)
        # Only then may the lease have ended: the claim still stands, or did so a moment ago.
        self.assertIsNone(lock.poll())
        lock.send_signal(signal.SIGCONT)
        self.assertEqual(lock.wait(timeout=LIMIT), LOST)


class Status(Cli):
    NODES = 3

    def test_table(self):
        out = self.out("status")
        self.assertEqual(len(re.findall(r"\bleader\b", out)), 1)
        self.assertEqual(len(re.findall(r"\bfollower\b", out)), 2)
        for server in self.cluster.servers:
            self.assertRegex(out, rf"{server.endpoint} +{server.name} ")
        self.assertIn("quorum: 3 of 3 members answer; tolerates 1 more failure", out)

    def test_json(self):
        status = json.loads(self.out("status", "-o", "json"))
        self.assertEqual((status["members"], status["reachable_members"], status["quorum"]), (3, 3, True))
        self.assertEqual([s["endpoint"] for s in status["servers"]], [s.endpoint for s in self.cluster.servers])
        self.assertEqual(sorted(s["role"] for s in status["servers"]), ["follower", "follower", "leader"])

    def test_other_verbs_ask_any_server(self):
        for server in self.cluster.servers:
            self.cli("kv", "put", self.prefix + server.name, "x", "--endpoints", server.endpoint)
        self.assertEqual(len(self.out("kv", "ls", self.prefix, "-o", "value").split()), 3)


class Failures(Cli):
    NODES = 3

    def kill(self, *servers):
        for server in servers:
            server.kill()

        def back():
            for server in servers:
                server.start()
            self.cluster.wait_healthy()

        self.addCleanup(back)

    def test_status_of_a_dead_server(self):
        dead = self.cluster.servers[1]
        self.kill(dead)
        # The other two may be electing.
        cluster.wait_until("there is a leader", lambda: "leader" in self.out("status", code=None).split(), LIMIT)
        out = self.out("status")
        self.assertRegex(out, rf"{dead.endpoint} +- +- +away")
        self.assertIn("quorum: 2 of 3 members answer; tolerates 0 more failures", out)

    def test_calls_go_to_the_living(self):
        self.cli("kv", "put", self.prefix, "x")
        leader = self.cluster.leader()
        others = [s for s in self.cluster.servers if s is not leader]
        self.kill(leader)
        order = ",".join(s.endpoint for s in [leader, *others])
        cluster.wait_until("a put succeeds", lambda: self.cli(
            "kv", "put", self.prefix, "y", "--endpoints", order, code=None).returncode == 0, 60)
        self.assertEqual(self.out("kv", "get", self.prefix, "--endpoints", order), "y\n")

    def test_lock_outlives_a_leader(self):
        lock = self.start("lock", self.prefix, "--ttl", "6s", "--", "sh", "-c",
                          f"echo on > {self.file('on')}; while [ ! -e {self.file('off')} ]; do sleep 0.05; done; exit 4")
        self.wait_file("on")
        claim = self.wait_claims(self.prefix, 1)[0]
        self.kill(self.cluster.leader())
        begin = time.monotonic()
        # Longer than the session would live without being renewed, while the command goes on.
        while time.monotonic() - begin < 8:
            self.assertIsNone(lock.poll())
            time.sleep(0.1)
        self.assertEqual(self.wait_claims(self.prefix, 1)[0], claim)
        self.file("off").touch()
        self.assertEqual(lock.wait(timeout=LIMIT), 4)

    def test_lock_is_handed_over_through_a_dead_leader(self):
        holder = self.start("lock", self.prefix, "--ttl", "10s", stdin=subprocess.PIPE)
        first = int(holder.stdout.readline())
        waiter = self.start("lock", self.prefix, "--ttl", "10s", "--", "sh", "-c", "echo $CONCLAVE_TOKEN")
        self.wait_claims(self.prefix, 2)
        self.kill(self.cluster.leader())
        cluster.wait_until("there is a leader", lambda: "leader" in self.out("status", code=None).split(), LIMIT)
        holder.stdin.close()
        self.assertEqual(holder.wait(timeout=LIMIT), 0)
        self.assertEqual(waiter.wait(timeout=60), 0)
        self.assertGreater(int(waiter.stdout.readline()), first)

    def test_command_ends_before_the_lease_without_servers(self):
        """No server left to renew: the command is gone before the lease could end, counted from the last renewal."""
        lock = self.start("lock", self.prefix, "--ttl", "4s", "--", "sh", "-c",
                          f"trap '' TERM; echo $$ > {self.file('pid')}; while :; do sleep 0.01; done")
        pid = int(self.wait_file("pid"))
        killed = time.monotonic()
        self.kill(*self.cluster.servers)
        cluster.wait_until("the command is gone", lambda: not alive(pid), LIMIT)
        self.assertLess(time.monotonic() - killed, 4.0)
        self.assertEqual(lock.wait(timeout=LIMIT), LOST)


class Recover(Cli):
    NODES = 3

    # Two of three are gone for good: the third's directory becomes a new cluster of three.
    def test_a_lost_quorum(self):
        tokens = []
        for number in range(20):
            self.cli("kv", "put", f"key{number}", f"value{number}")
        tokens.append(int(self.out("lock", "job", "--", "sh", "-c", "echo $CONCLAVE_TOKEN")))
        servers = self.cluster.servers
        survivor = str(servers[1].data)
        running = self.cli("recover", "plan", survivor, code=None)
        self.assertEqual(running.returncode, 74, running.stdout + running.stderr)
        self.assertIn("runs", running.stderr)
        for server in servers:
            server.kill()
        both = json.loads(self.out("recover", "plan", str(servers[0].data), survivor, "-o", "json"))
        self.assertTrue(both["complete"])
        alone = json.loads(self.out("recover", "plan", survivor, "-o", "json"))
        self.assertFalse(alone["complete"])
        self.assertEqual((alone["voters"], alone["here"]), (3, 1))
        self.assertIn("no quorum", self.out("recover", "plan", survivor))
        members = ",".join(f"{s.name}={cluster.HOST}:{s.peer_port}" for s in servers)
        for server in servers:
            apply = ["recover", "apply", "--from", survivor, "--name", server.name, "--join", members]
            self.cli(*apply, "--data", f"{server.data}-new")
            self.cli(*apply, "--data", f"{server.data}-new", code=USAGE)  # not empty any more
            server.data = pathlib.Path(f"{server.data}-new")
        for server in servers:
            server.start()
        self.cluster.wait_healthy()
        for number in range(20):
            self.assertEqual(self.out("kv", "get", f"key{number}", "-o", "value").strip(), f"value{number}")
        self.cli("kv", "put", "after", "it")
        tokens.append(int(self.out("lock", "job", "--", "sh", "-c", "echo $CONCLAVE_TOKEN")))
        self.assertGreater(tokens[1], tokens[0] + 10**12)


class NoServer(unittest.TestCase):
    def test_nobody_listens(self):
        port = cluster.free_ports(1)[0]
        done = subprocess.run([suite.OPTIONS.conclave, "kv", "get", "k", "--endpoints", f"127.0.0.1:{port}"],
                              capture_output=True, text=True, timeout=LIMIT, check=False)
        self.assertEqual(done.returncode, UNAVAILABLE)
        self.assertIn("--endpoints", done.stderr)


del Cli  # its subclasses are run, itself is not


if __name__ == "__main__":
    suite.main(__doc__)
