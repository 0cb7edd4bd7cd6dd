#!/usr/bin/python3
"""Membership changed at run time, with real servers, etcdctl and `conclave member`: a cluster grows, shrinks, replaces
what died and removes its leader, while somebody writes; and everything still stands after a restart of all.

membership_test.py [--conclave BINARY] [unittest's arguments]
"""
import json
import os
import re
import shlex
import subprocess
import threading
import time
import unittest

import cluster
import suite

LIMIT = suite.LIMIT
USAGE, NOT_FOUND, LOCAL_IO = 64, 1, 74


class Writer:
    """Writes increasing numbers through all servers for as long as it is used; an attempt that fails is repeated."""

    def __init__(self, case):
        self.case = case
        self.count = 0
        self.gap = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(LIMIT)

    def _run(self):
        last = time.monotonic()
        while not self._stop.is_set():
            done = self.case.cli("kv", "put", "writer", str(self.count + 1), code=None)
            if done.returncode == 0:
                self.count += 1
                self.gap = max(self.gap, time.monotonic() - last)
                last = time.monotonic()

    def wait_more(self, more=3):
        target = self.count + more
        cluster.wait_until("writes go on", lambda: self.count >= target, LIMIT)


class Membership(unittest.TestCase):
    NODES = 3
    TLS = False

    def setUp(self):
        self.cluster = cluster.make(suite.OPTIONS, self.NODES, tls=self.TLS)
        self.addCleanup(self.cluster.close)
        self.cluster.start()

    def environment(self):
        return {**os.environ, "ETCDCTL_API": "3",
                "CONCLAVE_ENDPOINTS": ",".join(s.endpoint for s in self.cluster.servers if s.running())}

    def run_program(self, arguments, code):
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=LIMIT, env=self.environment(),
                              stdin=subprocess.DEVNULL, check=False)
        if code == "fails":
            self.assertNotEqual(done.returncode, 0, f"{arguments}: {done.stdout}")
        elif code is not None:
            self.assertEqual(done.returncode, code, f"{arguments}: {done.stdout}{done.stderr}")
        return done

    def cli(self, *arguments, code=0):
        return self.run_program([suite.OPTIONS.conclave, *arguments, *self.cluster.client_arguments()], code)

    def etcdctl(self, *arguments, code=0):
        endpoints = self.environment()["CONCLAVE_ENDPOINTS"]
        return self.run_program(["etcdctl", "--endpoints", endpoints, "--command-timeout=15s",
                                 *self.cluster.client_arguments(), *arguments], code)

    def members(self):
        """By name; those without one by their id."""
        listed = json.loads(self.cli("member", "ls", "-o", "json").stdout)["members"]
        return {member["name"] or member["id"]: member for member in listed}

    def wait_role(self, name, role):
        cluster.wait_until(f"{name} is a {role}", lambda: self.members().get(name, {}).get("role") == role, LIMIT)

    def server(self, name):
        return next(s for s in self.cluster.servers if s.name == name)

    def new_server(self, name):
        client, peer = cluster.free_ports(2)
        server = cluster.Server(self.cluster, name, client, peer)
        if self.cluster.tls:
            self.cluster.tls.issue_server(name)
        self.cluster.servers.append(server)
        return server

    def start_with(self, server, line):
        """Starts the server by the line that `conclave member` printed, with the ports and directory of the test."""
        words = shlex.split(line)
        self.assertEqual(words[:2], ["conclave", "start"])
        given = dict(zip(words[2::2], words[3::2]))
        self.assertEqual(given["--name"], server.name)
        server.arguments = ["--name", given["--name"], "--join", given["--join"], "--cluster", given["--cluster"]]
        server.start()
        return given

    def add(self, name, *options):
        server = self.new_server(name)
        done = self.cli("member", "add", f"{name}={cluster.HOST}:{server.peer_port}", *options)
        self.start_with(server, done.stdout)
        return server

    def even(self):
        """All servers that run have applied the same, and answer."""
        self.cli("kv", "put", "even", "x")

        def applied():
            indexes = set()
            for server in self.cluster.servers:
                if not server.running():
                    continue
                done = subprocess.run(["etcdctl", "--endpoints", server.endpoint, *self.cluster.client_arguments(),
                                       "endpoint", "status", "-w", "json"], capture_output=True, timeout=10,
                                      env=self.environment(), check=False)
                if done.returncode != 0:
                    return False
                status = json.loads(done.stdout)[0]["Status"]
                if status.get("leader", 0) == 0:
                    return False
                indexes.add(status["raftAppliedIndex"])
            return len(indexes) == 1

        cluster.wait_until("all servers are even", applied, LIMIT)

    def restart_all(self):
        running = [s for s in self.cluster.servers if s.running()]
        for server in running:
            server.kill()
        for server in running:
            server.start()
        for server in running:
            cluster.wait_until(f"{server.name} is healthy", server.healthy, LIMIT)

    def wait_ended(self, server):
        cluster.wait_until(f"{server.name} ends", lambda: not server.running(), LIMIT)
        self.assertEqual(server.process.returncode, 0, server.last_words())
        self.assertIn("this server was removed from the cluster", server.last_words())


class Grow(Membership):
    def test_three_become_four(self):
        with Writer(self) as writer:
            writer.wait_more()
            fourth = self.add("n4")
            self.wait_role("n4", "voter")
            writer.wait_more()
        self.assertEqual(set(self.members()), {"n1", "n2", "n3", "n4"})
        cluster.wait_until("n4 is healthy", fourth.healthy, LIMIT)
        self.even()
        # It counts: of four, two are no quorum, three are.
        self.server("n1").kill()
        self.cli("kv", "put", "with-three", "x")
        self.server("n1").start()
        # Nobody is told again who is in the cluster, and the old lines name three.
        self.restart_all()
        self.even()
        self.assertEqual(self.cli("kv", "get", "with-three").stdout, "x\n")
        self.assertEqual({m["role"] for m in self.members().values()}, {"voter"})
        # Without --cluster as well; with another one it is refused.
        fourth.kill()
        kept = fourth.arguments
        fourth.arguments = kept[:-1] + ["1234"]
        fourth.start()
        self.assertEqual(fourth.process.wait(timeout=LIMIT), LOCAL_IO)
        self.assertIn("the directory belongs to cluster", fourth.last_words())
        fourth.arguments = kept[:-2]
        fourth.start()
        cluster.wait_until("n4 is healthy", fourth.healthy, LIMIT)
        self.even()

    def test_who_was_away_meets_a_leader_it_never_heard_of(self):
        away = self.server("n3") if self.cluster.leader().name != "n3" else self.server("n2")
        away.kill()
        self.add("n4")
        self.wait_role("n4", "voter")
        self.cli("leader", "transfer", "n4")
        away.start()
        cluster.wait_until(f"{away.name} is healthy", away.healthy, LIMIT)
        self.even()
        self.assertEqual(self.cluster.leader().name, "n4")

    def test_learner_is_promoted_by_hand(self):
        learner = self.add("n4", "--learner")
        self.wait_role("n4", "learner")
        cluster.wait_until("n4 listens", learner.listening, LIMIT)
        self.cli("kv", "put", "k", "v")

        def serializable():
            return subprocess.run([suite.OPTIONS.conclave, "kv", "get", "k", "--serializable", "--endpoints",
                                   learner.endpoint], capture_output=True, timeout=LIMIT, check=False).stdout == b"v\n"

        cluster.wait_until("the learner has what was written", serializable, LIMIT)
        refused = subprocess.run([suite.OPTIONS.conclave, "kv", "get", "k", "--endpoints", learner.endpoint],
                                 capture_output=True, text=True, timeout=LIMIT, check=False)
        self.assertIn("rpc not supported for learner", refused.stderr)
        self.assertIn("n4", self.cli("member", "promote", "n4").stdout)
        self.wait_role("n4", "voter")
        self.even()
        self.assertIn("can only promote a learner member", self.cli("member", "promote", "n4", code=NOT_FOUND).stderr)
        self.cli("member", "promote", "nobody", code=NOT_FOUND)


class Replace(Membership):
    def test_a_killed_server(self):
        dead = self.server("n3") if self.cluster.leader().name != "n3" else self.server("n2")
        with Writer(self) as writer:
            dead.kill()
            writer.wait_more()
            new = self.new_server("n4")
            done = self.cli("member", "replace", dead.name, f"n4={cluster.HOST}:{new.peer_port}")
            self.assertNotIn(f"{dead.name}=", done.stdout)
            self.start_with(new, done.stdout)
            self.wait_role("n4", "voter")
            writer.wait_more()
        self.assertNotIn(dead.name, self.members())
        self.even()
        # Who was replaced while it was away finds nobody that knows it.
        dead.start()
        cluster.wait_until("it is told so", lambda: "do not know this one as a member" in dead.last_words(), LIMIT)
        dead.kill()
        self.restart_all()
        self.even()

    def test_the_leader_is_removed(self):
        leader = self.cluster.leader()
        with Writer(self) as writer:
            writer.wait_more()
            self.assertIn("is out", self.cli("member", "rm", leader.name).stdout)
            self.wait_ended(leader)
            writer.wait_more()
        self.assertEqual(set(self.members()), {"n1", "n2", "n3"} - {leader.name})
        leader.start()
        self.assertEqual(leader.process.wait(timeout=LIMIT), LOCAL_IO)
        self.assertIn("was removed from the cluster", leader.last_words())
        self.even()
        self.restart_all()
        self.even()

    def test_leadership_is_moved(self):
        leader = self.cluster.leader()
        other = next(s for s in self.cluster.servers if s is not leader)
        self.assertIn("leads", self.cli("leader", "transfer", other.name).stdout)
        self.assertEqual(self.cluster.leader(), other)
        moved = json.loads(self.cli("leader", "transfer", "-o", "json").stdout)
        self.assertNotEqual(moved["name"], other.name)
        self.assertEqual(self.cluster.leader().name, moved["name"])
        ids = {name: member["id"] for name, member in self.members().items()}
        self.etcdctl("move-leader", ids[other.name])
        self.assertEqual(self.cluster.leader(), other)


class Etcdctl(Membership):
    def wait_listed(self, pattern, listed=True):
        """etcdctl 3.4 asks any server for what it knows, which may be a moment behind."""
        cluster.wait_until(f"{pattern} is {'' if listed else 'not '}listed",
                           lambda: bool(re.search(pattern, self.etcdctl("member", "list").stdout)) == listed, LIMIT)

    def test_members(self):
        new = self.new_server("n4")
        url = f"http://{cluster.HOST}:{new.peer_port}"
        added = self.etcdctl("member", "add", "n4", f"--peer-urls={url}").stdout
        identity = re.search(r"Member\s+([0-9a-f]+) added to cluster\s+([0-9a-f]+)", added)
        self.assertIsNotNone(identity, added)
        fourth, cluster_id = identity.groups()
        self.assertIn('ETCD_INITIAL_CLUSTER_STATE="existing"', added)
        self.wait_listed(f"{fourth}, unstarted")
        self.assertIn("Peer URLs already exists",
                      self.etcdctl("member", "add", "n5", f"--peer-urls={url}", code="fails").stderr)
        self.assertIn("member not found", self.etcdctl("member", "remove", "1234", code="fails").stderr)
        join = ",".join(f"{s.name}={cluster.HOST}:{s.peer_port}" for s in self.cluster.servers)
        new.arguments = ["--name", "n4", "--join", join, "--cluster", cluster_id]
        new.start()
        self.wait_role("n4", "voter")
        self.wait_listed(f"{fourth}, started, n4")
        # The address in its record is where it is looked for, until it publishes its own again.
        moved = f"http://localhost:{new.peer_port}"
        self.assertIn("updated", self.etcdctl("member", "update", fourth, f"--peer-urls={moved}").stdout)
        self.wait_listed(re.escape(moved))
        self.even()
        self.assertIn("removed", self.etcdctl("member", "remove", fourth).stdout)
        self.wait_ended(new)
        self.wait_listed(fourth, listed=False)
        self.even()

    def test_learners(self):
        urls = [f"http://{cluster.HOST}:{port}" for port in cluster.free_ports(2)]
        added = self.etcdctl("member", "add", "n4", "--learner", f"--peer-urls={urls[0]}").stdout
        learner = re.search(r"Member\s+([0-9a-f]+) added", added).group(1)
        self.wait_listed(f"{learner}, unstarted, .*, true")
        self.assertIn("too many learner members in cluster",
                      self.etcdctl("member", "add", "n5", "--learner", f"--peer-urls={urls[1]}", code="fails").stderr)
        self.assertIn("can only promote a learner member which is in sync with leader",
                      self.etcdctl("member", "promote", learner, code="fails").stderr)
        self.etcdctl("member", "remove", learner)
        self.wait_listed(learner, listed=False)

    def test_a_quorum_is_kept(self):
        away = self.server("n3") if self.cluster.leader().name != "n3" else self.server("n2")
        ids = {name: member["id"] for name, member in self.members().items()}
        away.kill()
        gone = time.monotonic()
        leader = self.cluster.leader()
        other = next(s for s in self.cluster.servers if s not in (away, leader))

        # Who answered the leader within an election timeout (1 s) counts as there: asked before that is over, the removal would
        # be made, so it cannot be asked until it is refused, and nothing else tells. Half a second for answers under way.
        time.sleep(max(0.0, gone + 1.5 - time.monotonic()))
        refused = self.etcdctl("member", "remove", ids[other.name], code="fails").stderr
        self.assertIn("unhealthy cluster", refused)
        self.etcdctl("member", "remove", ids[away.name])
        self.etcdctl("put", "k", "v")
        self.assertEqual(set(self.members()), {leader.name, other.name})


class Alone(Membership):
    NODES = 1

    def test_one_becomes_three(self):
        with Writer(self) as writer:
            writer.wait_more()
            for name in ("n2", "n3"):
                self.add(name)
                self.wait_role(name, "voter")
            writer.wait_more()
        self.even()
        self.restart_all()
        self.even()
        self.cluster.leader().kill()
        self.cli("kv", "put", "with-two", "x")

    def test_the_last_one_stays(self):
        only = next(iter(self.members().values()))
        self.assertIn("re-configuration failed due to not enough started members",
                      self.etcdctl("member", "remove", only["id"], code="fails").stderr)


class Tls(Membership):
    TLS = True

    def test_a_server_joins_by_its_name(self):
        server = self.new_server("n4")
        done = self.cli("member", "add", f"n4={cluster.HOST}:{server.peer_port}")
        self.assertIn("--peer-cert peer-n4.pem", done.stdout)
        self.start_with(server, done.stdout)
        self.wait_role("n4", "voter")
        self.even()
        self.cli("member", "rm", "n4")
        self.wait_ended(server)


if __name__ == "__main__":
    suite.main(__doc__)
