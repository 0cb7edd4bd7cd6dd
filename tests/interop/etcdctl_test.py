#!/usr/bin/python3
"""etcd's own command line, as Debian ships it, against one server, three, with TLS and without, and through the death of
a leader. Members added, promoted, updated and removed by it are in membership_test.py.

etcdctl_test.py [--system conclave|etcd] [--conclave BINARY] [unittest's arguments]
With --system etcd the suites without TLS run against etcd's own server: what passes there is what we must do.
"""
import base64
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import unittest
import urllib.error
import urllib.request

import cluster
import suite

LIMIT = suite.LIMIT


def text(value):
    return base64.b64decode(value).decode()


class Follow:
    """A running etcdctl whose lines come as they are printed. Ends with the test."""

    def __init__(self, case, arguments):
        self.lines = []
        self._arrived = threading.Condition()
        self.process = subprocess.Popen(case.command(arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True, env=case.environment(),
                                        preexec_fn=cluster.end_with_parent)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        case.addCleanup(self.end)

    def _read(self):
        for line in self.process.stdout:
            with self._arrived:
                self.lines.append(line.rstrip("\n"))
                self._arrived.notify_all()

    def wait_lines(self, count, limit=LIMIT):
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.lines) >= count, limit):
                raise cluster.Timeout(f"{count} lines expected, these came: {self.lines}")
            return list(self.lines)

    def wait_for(self, predicate, limit=LIMIT):
        with self._arrived:
            if not self._arrived.wait_for(lambda: predicate(self.lines), limit):
                raise cluster.Timeout(f"these lines came: {self.lines}")
            return list(self.lines)

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=LIMIT)

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=LIMIT)
        self._reader.join(timeout=LIMIT)
        self.process.stdin.close()
        self.process.stdout.close()


class Etcdctl(suite.Clustered):
    """What the suites share: calling etcdctl on the class's cluster."""

    def environment(self):
        return {**os.environ, "ETCDCTL_API": "3"}

    def command(self, arguments, endpoints=None):
        return ["etcdctl", "--endpoints", endpoints or self.cluster.endpoints, "--command-timeout=10s",
                *self.cluster.client_arguments(), *arguments]

    def url(self, server):
        return f"http{'s' if self.TLS else ''}://{server.endpoint}"

    def run_ctl(self, *arguments, code=0, stdin=None, endpoints=None):
        done = subprocess.run(self.command(arguments, endpoints), input=stdin, capture_output=True, text=True, timeout=LIMIT,
                              env=self.environment(), check=False)
        if code == "any":
            return done
        if code == "fails":
            self.assertNotEqual(done.returncode, 0, f"etcdctl {arguments} should fail: {done.stdout}")
        else:
            self.assertEqual(done.returncode, code, f"etcdctl {arguments}: {done.stdout}{done.stderr}")
        return done

    def lines(self, *arguments, stdin=None):
        return self.run_ctl(*arguments, stdin=stdin).stdout.splitlines()

    def json(self, *arguments, code=0):
        return json.loads(self.run_ctl(*arguments, "-w", "json", code=code).stdout)

    def put(self, name, value, *more):
        return self.json("put", self.key(name), value, *more)["header"]["revision"]

    def follow(self, *arguments):
        return Follow(self, list(arguments))


class KeyValues(Etcdctl):
    def test_put_and_get(self):
        revision = self.put("a", "1")
        self.assertEqual(self.lines("get", self.key("a")), [self.key("a"), "1"])
        answer = self.json("get", self.key("a"))
        self.assertEqual(answer["count"], 1)
        kv = answer["kvs"][0]
        self.assertEqual((text(kv["key"]), text(kv["value"])), (self.key("a"), "1"))
        self.assertEqual((kv["create_revision"], kv["mod_revision"], kv["version"]), (revision, revision, 1))
        again = self.put("a", "2")
        self.assertGreater(again, revision)
        kv = self.json("get", self.key("a"))["kvs"][0]
        self.assertEqual((kv["create_revision"], kv["mod_revision"], kv["version"]), (revision, again, 2))

    def test_header(self):
        header = self.json("put", self.key("a"), "1")["header"]
        for field in ("cluster_id", "member_id", "revision", "raft_term"):
            self.assertGreater(header[field], 0, field)

    def test_get_nothing(self):
        self.assertEqual(self.lines("get", self.key("none")), [])
        self.assertNotIn("kvs", self.json("get", self.key("none")))

    def test_get_ranges(self):
        for i in range(10):
            self.put(f"k{i}", f"v{i}")
        keys = [self.key(f"k{i}") for i in range(10)]
        only = ["--keys-only"]

        def listed(*arguments):
            return [line for line in self.lines("get", *arguments) if line]

        self.assertEqual(listed(self.prefix, "--prefix", *only), keys)
        self.assertEqual(listed(self.key("k3"), self.key("k6"), *only), keys[3:6])
        self.assertEqual(listed(self.prefix, "--prefix", "--limit=4", *only), keys[:4])
        self.assertEqual(listed(self.prefix, "--prefix", "--order=DESCEND", "--sort-by=KEY", *only), keys[::-1])
        last = [key for key in listed(self.key("k7"), "--from-key", *only) if key.startswith(self.prefix)]
        self.assertEqual(last, keys[7:])
        limited = self.json("get", self.prefix, "--prefix", "--limit=4")
        self.assertEqual((limited["count"], limited["more"], len(limited["kvs"])), (10, True, 4))
        self.assertEqual(self.lines("get", self.key("k2"), "--print-value-only"), ["v2"])
        self.assertEqual(listed(self.prefix, "--prefix", "--keys-only", "--consistency=s"), keys)

    def test_sort_orders(self):
        for name, value in (("x", "3"), ("y", "1"), ("z", "2"), ("x", "3"), ("x", "3"), ("y", "1")):
            self.put(name, value)

        def order(*arguments):
            return "".join(text(kv["key"])[-1] for kv in self.json("get", self.prefix, "--prefix", *arguments)["kvs"])

        self.assertEqual(order("--sort-by=CREATE", "--order=DESCEND"), "zyx")
        self.assertEqual(order("--sort-by=MODIFY", "--order=ASCEND"), "zxy")
        self.assertEqual(order("--sort-by=VERSION", "--order=ASCEND"), "zyx")
        self.assertEqual(order("--sort-by=VALUE", "--order=ASCEND"), "yzx")

    def test_get_at_revision(self):
        first = self.put("a", "old")
        self.put("a", "new")
        self.assertEqual(self.lines("get", self.key("a"), f"--rev={first}", "--print-value-only"), ["old"])
        future = self.run_ctl("get", self.key("a"), "--rev=1000000000", code="fails")
        self.assertIn("etcdserver: mvcc: required revision is a future revision", future.stderr)

    def test_put_options(self):
        self.put("a", "1")
        answer = self.json("put", self.key("a"), "2", "--prev-kv")
        self.assertEqual(text(answer["prev_kv"]["value"]), "1")
        missing = self.run_ctl("put", self.key("none"), "--ignore-value", code="fails")
        self.assertIn("etcdserver: key not found", missing.stderr)
        self.run_ctl("put", self.key("a"), "--ignore-value")
        kv = self.json("get", self.key("a"))["kvs"][0]
        self.assertEqual((text(kv["value"]), kv["version"]), ("2", 3))
        lease = self.run_ctl("put", self.key("a"), "3", "--lease=7fffffff", code="fails")
        self.assertIn("etcdserver: requested lease not found", lease.stderr)
        self.assertIn("etcdserver: key is not provided", self.run_ctl("put", "", "1", code="fails").stderr)

    def test_large_values(self):
        value = "x" * (1 << 20)
        self.run_ctl("put", self.key("large"), stdin=value)
        self.assertEqual(self.lines("get", self.key("large"), "--print-value-only"), [value])
        too_large = self.run_ctl("put", self.key("larger"), stdin="x" * (1 << 21), code="fails")
        self.assertRegex(too_large.stderr, "request is too large|larger than max")

    def test_delete(self):
        for name in "abcd":
            self.put(name, name)
        self.assertEqual(self.lines("del", self.key("a")), ["1"])
        self.assertEqual(self.lines("del", self.key("a")), ["0"])
        self.assertEqual(self.lines("del", self.key("b"), "--prev-kv"), ["1", self.key("b"), "b"])
        before = self.json("get", self.prefix, "--prefix")["header"]["revision"]
        self.assertEqual(self.lines("del", self.prefix, "--prefix"), ["2"])
        nothing = self.json("del", self.prefix, "--prefix")
        self.assertNotIn("deleted", nothing)
        if self.NODES == 1:
            self.assertEqual(nothing["header"]["revision"], before + 1)
        self.assertEqual(self.lines("get", self.prefix, "--prefix"), [])

    def test_transactions(self):
        self.put("a", "1")
        txn = 'value("{0}a") = "{1}"\n\nput {0}a yes\nget {0}a\n\nput {0}a no\nget {0}a\n\n'
        self.assertEqual(self.lines("txn", stdin=txn.format(self.prefix, "1"))[0], "SUCCESS")
        self.assertEqual(self.lines("get", self.key("a"), "--print-value-only"), ["yes"])
        out = self.lines("txn", stdin=txn.format(self.prefix, "1"))
        self.assertEqual(out[0], "FAILURE")
        self.assertEqual([line for line in out if line][-2:], [self.key("a"), "no"])
        create = 'create("{0}new") = "0"\n\nput {0}new made\nput {0}other made\n\nget {0}new\n\n'.format(self.prefix)
        self.assertEqual(self.lines("txn", stdin=create)[0], "SUCCESS")
        self.assertEqual(self.lines("txn", stdin=create)[0], "FAILURE")
        pair = self.json("get", self.prefix, "--prefix")["kvs"]
        revisions = {text(kv["key"]): kv["mod_revision"] for kv in pair}
        self.assertEqual(revisions[self.key("new")], revisions[self.key("other")])
        twice = self.run_ctl("txn", stdin="\nput {0}t 1\nput {0}t 2\n\n\n".format(self.prefix), code="fails")
        self.assertIn("etcdserver: duplicate key given in txn request", twice.stderr)

    def test_transaction_compares(self):
        self.put("a", "1")
        self.put("a", "5")

        def holds(compare):
            return self.lines("txn", stdin=f"{compare}\n\nget {self.key('a')}\n\n\n")[0] == "SUCCESS"

        name = self.key("a")
        self.assertTrue(holds(f'version("{name}") = "2"'))
        self.assertTrue(holds(f'version("{name}") > "1"'))
        self.assertFalse(holds(f'version("{name}") < "2"'))
        self.assertTrue(holds(f'value("{name}") = "5"'))
        self.assertTrue(holds(f'mod("{name}") > "1"'))
        self.assertFalse(holds(f'create("{name}") = "0"'))
        self.assertFalse(holds(f'value("{self.key("none")}") = ""'))


class Watches(Etcdctl):
    def test_watch_key(self):
        watch = self.follow("watch", self.key("a"))
        first = self.put("before", "x")
        # A watch that began late would miss the first put; one that began at a revision cannot.
        again = self.follow("watch", self.key("a"), f"--rev={first}")
        self.put("a", "1")
        again.wait_lines(3)
        self.put("a", "2")
        self.run_ctl("del", self.key("a"))
        self.assertEqual(again.wait_lines(9),
                         ["PUT", self.key("a"), "1", "PUT", self.key("a"), "2", "DELETE", self.key("a"), ""])
        watch.wait_for(lambda lines: lines[-3:] == ["DELETE", self.key("a"), ""])

    def test_watch_from_the_past(self):
        first = self.put("a", "1")
        self.put("a", "2")
        self.put("b", "3")
        watch = self.follow("watch", self.prefix, "--prefix", f"--rev={first}", "--prev-kv")
        lines = watch.wait_lines(11)
        self.assertEqual(lines, ["PUT", self.key("a"), "1", "PUT", self.key("a"), "1", self.key("a"), "2",
                                 "PUT", self.key("b"), "3"])

    def test_watch_transaction(self):
        first = self.put("start", "x")
        self.run_ctl("txn", stdin="\nput {0}p 1\nput {0}q 2\ndel {0}start\n\n\n".format(self.prefix))
        watch = self.follow("watch", self.prefix, "--prefix", f"--rev={first + 1}")
        self.assertEqual(sorted(watch.wait_lines(9)),
                         sorted(["PUT", self.key("p"), "1", "PUT", self.key("q"), "2", "DELETE", self.key("start"), ""]))

    def test_watch_interactive(self):
        watch = self.follow("watch", "-i")
        watch.process.stdin.write(f"watch {self.key('a')}\nwatch {self.key('b')}\nprogress\n")
        watch.process.stdin.flush()
        # The answer to `progress` says that both watches stand.
        watch.wait_for(lambda lines: any(line.startswith("progress notify:") for line in lines))
        self.put("a", "1")
        self.put("b", "2")
        watch.wait_for(lambda lines: lines[-6:] == ["PUT", self.key("a"), "1", "PUT", self.key("b"), "2"])

    def test_compaction(self):
        first = self.put("a", "1")
        second = self.put("a", "2")
        third = self.put("a", "3")
        self.run_ctl("compact", str(second))
        self.assertEqual(self.lines("get", self.key("a"), f"--rev={second}", "--print-value-only"), ["2"])
        gone = self.run_ctl("get", self.key("a"), f"--rev={first}", code="fails")
        self.assertIn("etcdserver: mvcc: required revision has been compacted", gone.stderr)
        again = self.run_ctl("compact", str(second), code="fails")
        self.assertIn("etcdserver: mvcc: required revision has been compacted", again.stderr)
        future = self.run_ctl("compact", str(third + 1000000), code="fails")
        self.assertIn("etcdserver: mvcc: required revision is a future revision", future.stderr)
        watch = self.run_ctl("watch", self.key("a"), f"--rev={first}", code="fails")
        self.assertRegex(watch.stderr + watch.stdout, "required revision has been compacted")
        self.run_ctl("compact", str(third), "--physical")


class Leases(Etcdctl):
    def grant(self, ttl):
        return re.fullmatch(r"lease ([0-9a-f]+) granted with TTL\((\d+)s\)", self.lines("lease", "grant", str(ttl))[0])

    def test_grant_put_revoke(self):
        lease = self.grant(60)[1]
        self.run_ctl("put", self.key("a"), "1", f"--lease={lease}")
        self.run_ctl("put", self.key("b"), "2", f"--lease={lease}")
        out = self.lines("lease", "timetolive", lease, "--keys")[0]
        told = re.fullmatch(r"lease (\w+) granted with TTL\(60s\), remaining\((\d+)s\), attached keys\(\[(.*)\]\)", out)
        self.assertTrue(told, out)
        self.assertLessEqual(int(told[2]), 60)
        self.assertGreaterEqual(int(told[2]), 50)
        self.assertEqual(sorted(told[3].split()), [self.key("a"), self.key("b")])
        self.assertIn(lease, "\n".join(self.lines("lease", "list")))
        self.assertEqual(self.json("get", self.key("a"))["kvs"][0]["lease"], int(lease, 16))
        self.run_ctl("lease", "revoke", lease)
        self.assertEqual(self.lines("get", self.prefix, "--prefix"), [])
        self.assertEqual(self.lines("lease", "timetolive", lease)[0], f"lease {lease} already expired")
        gone = self.run_ctl("lease", "revoke", lease, code="fails")
        self.assertIn("requested lease not found", gone.stderr)

    def test_put_detaches(self):
        lease = self.grant(60)[1]
        self.run_ctl("put", self.key("a"), "1", f"--lease={lease}")
        self.run_ctl("put", self.key("a"), "2")
        self.run_ctl("lease", "revoke", lease)
        self.assertEqual(self.lines("get", self.key("a"), "--print-value-only"), ["2"])

    def test_keep_alive(self):
        lease = self.grant(2)[1]
        self.run_ctl("put", self.key("a"), "1", f"--lease={lease}")
        alive = self.follow("lease", "keep-alive", lease)
        alive.wait_lines(4)
        for line in alive.lines[:4]:
            self.assertRegex(line, rf"lease {lease} keepalived with TTL\(\d+\)")
        # Three renewals lie between the first and the fourth line: longer than the lease lives by itself.
        self.assertEqual(self.lines("get", self.key("a"), "--print-value-only"), ["1"])
        watch = self.follow("watch", self.key("a"), f"--rev={self.json('get', self.key('a'))['header']['revision']}")
        alive.end()
        watch.wait_for(lambda lines: lines[-3:] == ["DELETE", self.key("a"), ""])
        once = self.run_ctl("lease", "keep-alive", "--once", lease, code="fails")
        self.assertIn("etcdserver: requested lease not found", once.stderr)

    def test_keep_alive_once(self):
        lease = self.grant(60)[1]
        self.assertRegex(self.lines("lease", "keep-alive", "--once", lease)[0], rf"lease {lease} keepalived with TTL\(60\)")
        self.run_ctl("lease", "revoke", lease)


class Recipes(Etcdctl):
    def test_lock_excludes(self):
        first = self.follow("lock", self.key("l"))
        held = first.wait_lines(1)[0]
        self.assertTrue(held.startswith(self.key("l") + "/"), held)
        second = self.follow("lock", self.key("l"))
        cluster.wait_until("the second claim stands",
                           lambda: len(self.json("get", self.key("l") + "/", "--prefix").get("kvs", [])) == 2, LIMIT)
        self.assertEqual(second.lines, [])
        first.interrupt()
        self.assertNotEqual(second.wait_lines(1)[0], held)
        second.interrupt()
        self.assertEqual(self.lines("get", self.prefix, "--prefix"), [])

    def test_lock_runs_commands(self):
        out = self.lines("lock", self.key("l"), "--", "sh", "-c", "echo ran $ETCD_LOCK_KEY")
        self.assertEqual(len(out), 1)
        self.assertTrue(out[0].startswith("ran " + self.key("l") + "/"), out)
        self.assertEqual(self.lines("get", self.prefix, "--prefix"), [])

    def test_lock_of_a_dead_holder(self):
        first = self.follow("lock", self.key("l"), "--ttl=2")
        first.wait_lines(1)
        second = self.follow("lock", self.key("l"), "--ttl=2")
        cluster.wait_until("the second claim stands",
                           lambda: len(self.json("get", self.key("l") + "/", "--prefix").get("kvs", [])) == 2, LIMIT)
        first.process.kill()
        second.wait_lines(1)
        second.interrupt()

    def test_elect(self):
        first = self.follow("elect", self.key("e"), "one")
        first.wait_lines(2)
        self.assertEqual(first.lines[1], "one")
        listen = self.follow("elect", "-l", self.key("e"))
        listen.wait_for(lambda lines: lines[-1:] == ["one"])
        second = self.follow("elect", self.key("e"), "two")
        cluster.wait_until("the second candidate stands",
                           lambda: len(self.json("get", self.key("e") + "/", "--prefix").get("kvs", [])) == 2, LIMIT)
        self.assertEqual(second.lines, [])
        first.interrupt()
        second.wait_for(lambda lines: lines[-1:] == ["two"])
        listen.wait_for(lambda lines: lines[-1:] == ["two"])
        second.interrupt()


class Members(Etcdctl):
    def test_member_list(self):
        members = self.json("member", "list")["members"]
        self.assertEqual(len(members), self.NODES)
        ids = {member["ID"] for member in members}
        self.assertEqual(len(ids), self.NODES)
        if self.cluster.system == "etcd" or self.NODES > 1:
            self.assertEqual({member["name"] for member in members}, {s.name for s in self.cluster.servers})
        urls = {url for member in members for url in member["clientURLs"]}
        self.assertEqual(urls, {self.url(s) for s in self.cluster.servers})
        for member in members:
            self.assertTrue(member["peerURLs"])
        self.assertEqual(len(self.lines("member", "list")), self.NODES)

    def test_endpoint_status(self):
        answers = json.loads(self.run_ctl("endpoint", "status", "-w", "json").stdout)
        self.assertEqual([a["Endpoint"] for a in answers], [s.endpoint for s in self.cluster.servers])
        leaders = {a["Status"]["leader"] for a in answers}
        self.assertEqual(len(leaders), 1)
        self.assertIn(leaders.pop(), {a["Status"]["header"]["member_id"] for a in answers})
        for answer in answers:
            self.assertRegex(answer["Status"]["version"], r"^3\.\d+\.\d+$")
            for field in ("raftTerm", "raftIndex", "raftAppliedIndex", "dbSize"):
                self.assertGreater(answer["Status"][field], 0, field)
        self.assertEqual(len(self.lines("endpoint", "status")), self.NODES)

    def test_endpoint_health(self):
        done = self.run_ctl("endpoint", "health")
        self.assertEqual((done.stdout + done.stderr).count("is healthy"), self.NODES)

    def test_alarms(self):
        self.assertEqual(self.lines("alarm", "list"), [])

    def test_discovered_endpoints(self):
        done = self.run_ctl("endpoint", "health", "--cluster")
        self.assertEqual((done.stdout + done.stderr).count("is healthy"), self.NODES)
        self.assertEqual(len(self.lines("endpoint", "status", "--cluster")), self.NODES)
        self.assertEqual(len(self.lines("endpoint", "hashkv", "--cluster")), self.NODES)

    def test_nobody_is_changed(self):
        for verb in (["update", "1234", "--peer-urls=http://127.0.0.1:1"], ["promote", "1234"], ["remove", "1234"]):
            self.assertIn("etcdserver: member not found", self.run_ctl("member", *verb, code="fails").stderr)
        self.assertIn("etcdserver: bad leader transferee", self.run_ctl("move-leader", "1234", code="fails").stderr)

    def test_move_leader(self):
        if self.NODES == 1:
            self.skipTest("there is nobody to move it to")
        status = self.json("endpoint", "status")[0]["Status"]
        ids = [member["ID"] for member in self.json("member", "list")["members"]]
        heir = next(member for member in ids if member != status["leader"])
        self.run_ctl("move-leader", f"{heir:x}")
        cluster.wait_until("the other leads", lambda: {
            answer["Status"]["leader"] for answer in self.json("endpoint", "status")} == {heir}, LIMIT)


class Maintenance(Etcdctl):
    def test_snapshot_save(self):
        for i in range(20):
            self.put(str(i), "v" * 10000)
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "saved")
            self.run_ctl("snapshot", "save", path, endpoints=self.cluster.servers[0].endpoint)
            self.assertEqual(os.path.getsize(path) % 512, 32)
            self.assertGreater(os.path.getsize(path), 200000)
            if self.cluster.system == "etcd":
                self.assertGreater(self.json("snapshot", "status", path)["totalKey"], 20)
            else:
                # The inside is of our own format: etcd's tool says so, and reads nothing wrong out of it.
                self.assertIn("invalid database", self.run_ctl("snapshot", "status", path, code="fails").stderr)

    def test_defrag_alarms_and_hashes(self):
        self.run_ctl("defrag")
        self.assertEqual(self.lines("alarm", "list"), [])
        self.assertEqual(self.lines("alarm", "disarm"), [])
        revision = self.put("hash", "1")
        self.put("hash", "2")
        answers = self.json("endpoint", "hashkv", "--rev", str(revision))
        self.assertEqual(len({answer["HashKV"]["hash"] for answer in answers}), 1)

    def test_auth_is_off(self):
        self.assertIn("root user does not exist", self.run_ctl("auth", "enable", code="fails").stderr)
        self.assertEqual(self.lines("user", "list"), [])
        self.assertIn("role name not found", self.run_ctl("role", "get", "r", code="fails").stderr)

    def post(self, path, body):
        request = urllib.request.Request(f"{self.url(self.cluster.servers[0])}/v3/{path}", data=body.encode())
        with self.open(request) as answer:
            return json.load(answer)

    def open(self, request):
        return urllib.request.urlopen(request, timeout=LIMIT, context=self.cluster.tls.context() if self.TLS else None)

    def test_json(self):
        key = base64.b64encode(self.key("j").encode()).decode()
        revision = self.post("kv/put", json.dumps({"key": key, "value": "MQ=="}))["header"]["revision"]
        self.assertEqual(self.post("kv/range", json.dumps({"key": key}))["kvs"],
                         [{"key": key, "value": "MQ==", "create_revision": revision, "mod_revision": revision, "version": "1"}])
        with self.assertRaises(urllib.error.HTTPError) as refused:
            self.post("kv/put", "{}")
        with refused.exception as answer:
            self.assertEqual(answer.code, 400)
            self.assertEqual(json.load(answer)["error"], "etcdserver: key is not provided")
        watch = urllib.request.Request(f"{self.url(self.cluster.servers[0])}/v3/watch",
                                       data=json.dumps({"create_request": {"key": key, "start_revision": revision}}).encode())
        with self.open(watch) as lines:
            self.assertTrue(json.loads(lines.readline())["result"]["created"])
            self.assertEqual(json.loads(lines.readline())["result"]["events"][0]["kv"]["value"], "MQ==")
            self.put("j", "2")
            self.assertEqual(json.loads(lines.readline())["result"]["events"][0]["kv"]["value"], "Mg==")


class Mirrors(Etcdctl):
    def test_make_mirror(self):
        """From one prefix to another: what is there, then what happens to it."""
        for i in range(5):
            self.put(f"from/{i}", f"v{i}")
        trust = []
        if self.TLS:
            names = iter(self.cluster.client_arguments())
            trust = ["--dest-insecure-transport=false", *(f"--dest-{name[2:]}={next(names)}" for name in names)]
        self.follow("make-mirror", f"--prefix={self.key('from/')}", f"--dest-prefix={self.key('to/')}", *trust,
                    self.cluster.servers[-1].endpoint)

        def mirrored():
            kvs = self.json("get", self.key("to/"), "--prefix").get("kvs", [])
            return {text(kv["key"])[len(self.key("to/")):]: text(kv["value"]) for kv in kvs}

        expected = {str(i): f"v{i}" for i in range(5)}
        cluster.wait_until("the mirror has what was there", lambda: mirrored() == expected, LIMIT)
        self.put("from/0", "changed")
        self.run_ctl("del", self.key("from/1"))
        self.run_ctl("txn", stdin="\nput {0}from/2 both\nput {0}from/new both\ndel {0}from/3\n\n\n".format(self.prefix))
        expected = {"0": "changed", "2": "both", "new": "both", "4": "v4"}
        cluster.wait_until("the mirror has what happened", lambda: mirrored() == expected, LIMIT)


class Everything(KeyValues, Watches, Leases, Recipes, Members, Maintenance, Mirrors):
    pass


class OneServer(Everything, unittest.TestCase):
    NODES = 1


class OneServerTls(Everything, unittest.TestCase):
    NODES = 1
    TLS = True


class ThreeServers(Everything, unittest.TestCase):
    NODES = 3


class ThreeServersTls(Everything, unittest.TestCase):
    NODES = 3
    TLS = True


class Checks(Etcdctl, unittest.TestCase):
    """etcdctl's own load. `check perf` takes its minute whatever the server does."""

    def test_perf_and_datascale(self):
        perf = self.follow("check", "perf", "--load=s", "--auto-compact", "--auto-defrag")
        scale = self.run_ctl("check", "datascale", "--load=s", "--auto-compact", "--auto-defrag")
        self.assertIn("PASS: Approximate system memory used", scale.stdout)
        out = "\n".join(perf.wait_for(lambda lines: lines and lines[-1] in ("PASS", "FAIL"), 150))
        # Whether it was fast is about the machine; that no write failed is about us.
        self.assertRegex(out, "Throughput (is|too low)")
        self.assertNotIn("too many errors", out)
        self.assertEqual(self.lines("get", "/etcdctl-check", "--prefix", "--keys-only"), [])


class Killed(Etcdctl):
    """kill -9 of the leader under each kind of client; it comes back after each test."""

    NODES = 3

    def others(self, dead):
        return ",".join(s.endpoint for s in self.cluster.servers if s is not dead)

    def retry(self, *arguments):
        """A call whose outcome may be unknown while a leader is elected; what is repeated here may happen twice."""
        cluster.wait_until(f"etcdctl {arguments}", lambda: self.run_ctl(*arguments, code="any").returncode == 0, 60)

    def test_data_survives(self):
        revisions = [self.put(f"k{i}", f"v{i}") for i in range(20)]
        before = self.json("get", self.prefix, "--prefix")["kvs"]
        self.assertEqual(revisions, sorted(set(revisions)))
        self.kill_leader()
        self.retry("put", self.key("after"), "x")
        after = self.json("get", self.prefix, "--prefix")
        self.assertEqual([kv for kv in after["kvs"] if text(kv["key"]) != self.key("after")], before)
        self.assertGreater(after["header"]["revision"], revisions[-1])
        self.cluster.leader()

    def test_watch_goes_on(self):
        first = self.put("a", "0")
        watch = self.follow("watch", self.key("a"), f"--rev={first}")
        watch.wait_lines(3)
        self.kill_leader()
        self.retry("put", self.key("a"), "1")
        self.retry("put", self.key("a"), "2")
        lines = watch.wait_for(lambda lines: lines and lines[-1] == "2", 60)
        # A put that was repeated may stand twice; nothing may be missing or out of order.
        values = lines[2::3]
        self.assertEqual(sorted(set(values)), ["0", "1", "2"])
        self.assertEqual(values, sorted(values))

    def test_lock_is_kept(self):
        first = self.follow("lock", self.key("l"), "--ttl=10")
        first.wait_lines(1)
        self.kill_leader()
        self.retry("put", self.key("x"), "1")
        holders = self.json("get", self.key("l") + "/", "--prefix")["kvs"]
        self.assertEqual([text(kv["key"]) for kv in holders], first.lines[:1])
        second = self.follow("lock", self.key("l"), "--ttl=10")
        cluster.wait_until("the second claim stands",
                           lambda: len(self.json("get", self.key("l") + "/", "--prefix").get("kvs", [])) == 2, 60)
        self.assertEqual(second.lines, [])
        first.interrupt()
        second.wait_lines(1, 60)
        second.interrupt()

    def test_deletes_and_transactions_go_on(self):
        for i in range(4):
            self.put(f"k{i}", "v")
        self.kill_leader()
        # What may have been done twice is the same done once.
        self.retry("del", self.key("k0"))
        self.assertEqual(self.lines("get", self.key("k0")), [])
        cluster.wait_until("a transaction", lambda: self.run_ctl(
            "txn", code="any", stdin=f'value("{self.key("k1")}") = "v"\n\nput {self.key("k2")} new\n\nget {self.key("k3")}\n\n'
        ).returncode == 0, 60)
        self.assertEqual(self.lines("get", self.key("k2"), "--print-value-only"), ["new"])

    def test_election_goes_on(self):
        first = self.follow("elect", self.key("e"), "one")
        first.wait_lines(2)
        self.kill_leader()
        self.retry("put", self.key("x"), "1")
        # The claim stands and is still the oldest: the second candidate waits, until the first is gone.
        second = self.follow("elect", self.key("e"), "two")
        cluster.wait_until("the second claim stands",
                           lambda: len(self.json("get", self.key("e") + "/", "--prefix").get("kvs", [])) == 2, 60)
        self.assertEqual(second.lines, [])
        first.interrupt()
        second.wait_lines(2, 60)
        self.assertEqual(second.lines[1], "two")
        second.interrupt()

    def test_what_is_told_of_a_dead_member(self):
        dead = self.kill_leader()
        self.retry("put", self.key("x"), "1")
        members = self.json("member", "list")["members"]
        self.assertEqual(sorted(m["name"] for m in members), sorted(s.name for s in self.cluster.servers))
        health = self.json("endpoint", "health", code="any")
        healthy = {entry["endpoint"]: entry["health"] for entry in health}
        self.assertEqual(healthy, {s.endpoint: s is not dead for s in self.cluster.servers})
        status = self.json("endpoint", "status", code="any")
        self.assertEqual({entry["Endpoint"] for entry in status}, {s.endpoint for s in self.cluster.servers if s is not dead})
        leaders = {entry["Status"]["leader"] for entry in status}
        self.assertEqual(len(leaders), 1)
        self.assertIn(leaders.pop(), {entry["Status"]["header"]["member_id"] for entry in status})

    def test_lease_is_kept_and_ends(self):
        lease = self.lines("lease", "grant", "4")[0].split()[1]
        self.run_ctl("put", self.key("a"), "1", f"--lease={lease}")
        alive = self.follow("lease", "keep-alive", lease)
        alive.wait_lines(1)
        self.kill_leader()
        self.retry("put", self.key("x"), "1")
        seen = len(alive.lines)
        alive.wait_lines(seen + 4, 60)
        self.assertEqual(self.lines("get", self.key("a"), "--print-value-only"), ["1"])
        alive.end()
        cluster.wait_until("the key of the lease is gone", lambda: self.lines("get", self.key("a")) == [], 60)

    def test_maintenance_goes_on(self):
        revisions = [self.put("a", str(i)) for i in range(4)]
        dead = self.kill_leader()
        self.retry("compaction", str(revisions[2]))
        self.assertIn("required revision has been compacted",
                      self.run_ctl("get", self.key("a"), f"--rev={revisions[1]}", code="fails").stderr)
        self.assertEqual(self.lines("alarm", "list"), [])
        self.retry("alarm", "disarm")
        living = self.others(dead)
        for verb in (["defrag"], ["endpoint", "hashkv"], ["endpoint", "health"], ["endpoint", "status"]):
            self.run_ctl(*verb, endpoints=living)
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "saved")
            self.run_ctl("snapshot", "save", path, endpoints=living.split(",")[0])
            self.assertEqual(os.path.getsize(path) % 512, 32)
        leader = self.cluster.leader()
        heir = next(s for s in self.cluster.servers if s not in (dead, leader))
        ids = {member["name"]: member["ID"] for member in self.json("member", "list")["members"]}
        self.run_ctl("move-leader", f"{ids[heir.name]:x}", endpoints=living)
        cluster.wait_until("the other leads", lambda: self.cluster.leader() is heir, LIMIT)


class LeaderKilled(Killed, unittest.TestCase):
    pass


class LeaderKilledTls(Killed, unittest.TestCase):
    TLS = True


if __name__ == "__main__":
    suite.main(__doc__)
