#!/usr/bin/python3
"""python-etcd3 as Debian ships it, against one server and three, plaintext and TLS, and through the death of a leader.

python_etcd3_test.py [--system conclave|etcd] [--conclave BINARY] [unittest's arguments]
With --system etcd the suites without TLS run against etcd's own server.
"""
import functools
import hashlib
import io
import queue
import subprocess
import threading
import time
import unittest
import urllib.request

import etcd3
import grpc

import cluster
import suite

LIMIT = suite.LIMIT


class Seen:
    """What a watch has told: events in order, and the error that ended it."""

    def __init__(self):
        self.events = []
        self.error = None
        self._arrived = threading.Condition()

    def __call__(self, answer):
        with self._arrived:
            if isinstance(answer, Exception):
                self.error = answer
            else:
                self.events.extend(answer.events)
            self._arrived.notify_all()

    def wait_for(self, predicate):
        with self._arrived:
            if not self._arrived.wait_for(lambda: predicate(self), LIMIT):
                raise cluster.Timeout(f"these events came: {[str(event) for event in self.events]}, {self.error}")

    def wait_events(self, count):
        self.wait_for(lambda seen: len(seen.events) >= count)
        return [(type(event).__name__, event.key.decode(), event.value.decode()) for event in self.events]


class Base(suite.Clustered):
    """What the suites share: a client for each test."""

    def setUp(self):
        super().setUp()
        self.client = self.new_client(self.cluster.servers)

    def new_client(self, servers):
        """The library knows one host; gRPC's own scheme for several addresses is what makes it know them all."""
        *others, last = servers
        host = "ipv4:" + ",".join([server.endpoint for server in others] + [cluster.HOST])
        more = {}
        if self.TLS:
            tls = self.cluster.tls
            more = {"ca_cert": tls.path("ca.pem"), "cert_cert": tls.path("client-tester.pem"),
                    "cert_key": tls.path("client-tester.key"),
                    "grpc_options": [("grpc.ssl_target_name_override", cluster.HOST)]}
        client = etcd3.client(host=host, port=last.client_port, timeout=10, **more)
        self.addCleanup(client.close)
        return client

    def value(self, name):
        return self.client.get(self.key(name))[0]

    def put(self, name, value, **more):
        return self.client.put(self.key(name), value, **more).header.revision

    def refused(self, code, text, call, *arguments):
        """The library hands on some of gRPC's errors, and makes errors without a text of others."""
        with self.assertRaises(grpc.RpcError) as raised:
            call(*arguments)
        self.assertEqual((raised.exception.code(), raised.exception.details()), (code, text))

    def retry(self, call, *arguments, **more):
        """What may fail while a leader is elected; what is repeated here may happen twice."""
        def attempt():
            try:
                return [call(*arguments, **more)]
            except (etcd3.exceptions.Etcd3Exception, grpc.RpcError) as error:
                raise OSError(repr(error)) from error

        return cluster.wait_until(f"{call}", attempt, 60)[0]

    def watch(self, name, client=None, **more):
        seen = Seen()
        (client or self.client).add_watch_callback(self.key(name), seen, **more)
        return seen


class Calls(Base):
    def test_put_get_delete(self):
        first = self.put("a", "1")
        answer = self.client.put(self.key("a"), "2", prev_kv=True)
        self.assertEqual(answer.prev_kv.value, b"1")
        value, about = self.client.get(self.key("a"))
        self.assertEqual((value, about.create_revision, about.mod_revision, about.version),
                         (b"2", first, answer.header.revision, 2))
        self.assertEqual(self.client.get(self.key("a"), serializable=self.NODES == 1)[0], b"2")
        self.assertEqual(self.client.get(self.key("none")), (None, None))
        self.assertTrue(self.client.delete(self.key("a")))
        self.assertFalse(self.client.delete(self.key("a")))
        self.put("a", "3")
        gone = self.client.delete(self.key("a"), prev_kv=True, return_response=True)
        self.assertEqual((gone.deleted, gone.prev_kvs[0].value), (1, b"3"))
        self.refused(grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: key is not provided", self.client.put, "", "1")

    def test_ranges(self):
        for i in range(10):
            self.put(f"k{i}", str(9 - i))

        def names(found):
            return [about.key.decode()[len(self.prefix):] for _, about in found]

        order = [f"k{i}" for i in range(10)]
        self.assertEqual(names(self.client.get_prefix(self.prefix)), order)
        self.assertEqual(names(self.client.get_prefix(self.prefix, sort_order="descend")), order[::-1])
        self.assertEqual(names(self.client.get_prefix(self.prefix, sort_order="ascend", sort_target="value")), order[::-1])
        self.assertEqual(names(self.client.get_range(self.key("k3"), self.key("k6"))), order[3:6])
        self.assertEqual({value for value, _ in self.client.get_prefix(self.prefix, keys_only=True)}, {b""})
        everything = {about.key.decode() for _, about in self.client.get_all()}
        self.assertLessEqual({self.key(name) for name in order}, everything)
        self.assertEqual(self.client.delete_prefix(self.prefix).deleted, 10)

    def test_large_values(self):
        value = b"x" * (1 << 20)
        self.put("large", value)
        self.assertEqual(self.value("large"), value)
        self.refused(grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: request is too large", self.put, "larger", b"x" * (3 << 19))

    def test_transactions(self):
        has = self.client.transactions
        a, b = self.key("a"), self.key("b")
        self.assertTrue(self.client.put_if_not_exists(a, "1"))
        self.assertFalse(self.client.put_if_not_exists(a, "2"))
        self.assertTrue(self.client.replace(a, "1", "5"))
        self.assertFalse(self.client.replace(a, "1", "6"))
        revision = self.client.get(a)[1].mod_revision
        holds, answers = self.client.transaction(
            compare=[has.value(a) == "5", has.version(a) > 1, has.mod(a) < revision + 1, has.create(b) == 0,
                     has.version(a) != 7],
            success=[has.put(b, "made"), has.get(b), has.delete(a, prev_kv=True)], failure=[has.put(b, "wrong")])
        self.assertTrue(holds)
        self.assertEqual(answers[1][0][0], b"made")
        self.assertEqual(answers[2].response_delete_range.prev_kvs[0].value, b"5")
        holds, answers = self.client.transaction(
            compare=[has.version(a) > 0], success=[],
            failure=[has.txn(compare=[has.value(b) == "made"], success=[has.put(b, "inner"), has.get(b)], failure=[])])
        self.assertFalse(holds)
        self.assertTrue(answers[0].response_txn.succeeded)
        self.assertEqual(self.value("b"), b"inner")
        twice = [has.put(b, "1"), has.put(b, "2")]
        self.refused(grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request",
                     lambda: self.client.transaction(compare=[], success=twice, failure=[]))

    def test_compaction(self):
        first = self.put("a", "1")
        second = self.put("a", "2")
        self.client.compact(second, physical=True)
        self.refused(grpc.StatusCode.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted",
                     self.client.compact, second)
        gone = self.watch("a", start_revision=first)
        gone.wait_for(lambda seen: seen.error is not None)
        self.assertIsInstance(gone.error, etcd3.exceptions.RevisionCompactedError)
        self.assertEqual(gone.error.compacted_revision, second)

    def test_watch(self):
        start = self.put("a", "0")
        seen = self.watch("a", start_revision=start)
        self.put("a", "1")
        self.client.delete(self.key("a"))
        name = self.key("a")
        self.assertEqual(seen.wait_events(3), [("PutEvent", name, "0"), ("PutEvent", name, "1"), ("DeleteEvent", name, "")])
        # Two more on the same stream, of which one ends and the other goes on.
        events, cancel = self.client.watch_prefix(self.prefix, start_revision=start, prev_kv=True)
        before = [next(events) for _ in range(3)]
        self.assertEqual([event.prev_value for event in before], [b"", b"0", b"1"])
        cancel()
        self.assertEqual(list(events), [])
        self.assertEqual(self.client.watch_once(self.key("a"), timeout=LIMIT, start_revision=start + 1).value, b"1")
        self.put("a", "2")
        self.assertEqual(seen.wait_events(4)[3], ("PutEvent", name, "2"))

    def test_leases(self):
        lease = self.client.lease(60)
        self.put("a", "1", lease=lease)
        self.assertEqual((lease.granted_ttl, list(lease.keys)), (60, [self.key("a").encode()]))
        self.assertTrue(50 <= lease.remaining_ttl <= 60)
        self.assertEqual(lease.refresh()[0].TTL, 60)
        self.assertEqual(self.client.get(self.key("a"))[1].lease_id, lease.id)
        lease.revoke()
        self.assertIsNone(self.value("a"))
        self.assertEqual(lease.remaining_ttl, -1)
        self.assertEqual(lease.refresh()[0].TTL, 0)
        self.refused(grpc.StatusCode.NOT_FOUND, "etcdserver: requested lease not found", lease.revoke)
        chosen = self.client.lease(60, lease_id=4242)
        self.assertEqual(chosen.id, 4242)
        with self.assertRaises(etcd3.exceptions.PreconditionFailedError):
            self.client.lease(60, lease_id=4242)
        chosen.revoke()

    def test_lease_ends(self):
        lease = self.client.lease(2)
        put = self.put("a", "1", lease=lease)
        begin = time.monotonic()
        seen = self.watch("a", start_revision=put + 1)
        self.assertEqual(seen.wait_events(1)[0][0], "DeleteEvent")
        self.assertGreater(time.monotonic() - begin, 1.5)

    def test_locks(self):
        # Waiting is done here: with the tenacity of Debian the library's own wait between two attempts is a TypeError.
        first, second = self.client.lock(self.prefix, ttl=20), self.new_client(self.cluster.servers).lock(self.prefix, ttl=20)
        self.assertTrue(first.acquire(timeout=0))
        self.assertTrue(first.is_acquired())
        self.assertFalse(second.acquire(timeout=0))
        self.assertEqual(first.refresh()[0].TTL, 20)
        seen = Seen()
        self.client.add_watch_callback(first.key, seen)
        self.assertFalse(second.release())
        self.assertTrue(first.release())
        self.assertEqual(seen.wait_events(1)[0][0], "DeleteEvent")
        with second as held:
            self.assertTrue(held.is_acquired())
            self.assertFalse(first.is_acquired())
        self.assertIsNone(self.client.get(first.key)[0])

    def test_members_and_status(self):
        members = list(self.client.members)
        self.assertEqual({url for member in members for url in member.client_urls},
                         {f"http{'s' if self.TLS else ''}://{server.endpoint}" for server in self.cluster.servers})
        for server in self.cluster.servers:
            client = self.new_client([server])
            status = client.status()
            self.assertIn(status.leader.id, {member.id for member in members})
            self.assertRegex(status.version, r"^3\.\d+\.\d+$")
            self.assertTrue(status.db_size > 0 and status.raft_index > 0 and status.raft_term > 0)
            client.defragment()
            self.assertGreater(client.hash(), 0)
        self.assertEqual(list(self.client.list_alarms()), [])
        self.assertEqual(self.client.disarm_alarm(), [])

    def test_reflection(self):
        # In the bytes of the protocol: Debian has no client of it.
        if suite.OPTIONS.system != "conclave":
            self.skipTest("etcd has no reflection")
        list_services = b"\x3a\x01*"
        for version in ("v1", "v1alpha"):
            ask = self.client.channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
            answers = list(ask(iter([list_services]), timeout=LIMIT))
            self.assertEqual(len(answers), 1)
            for service in (b"etcdserverpb.KV", b"v3lockpb.Lock", b"grpc.health.v1.Health"):
                self.assertIn(service, answers[0])

    def test_snapshot(self):
        for i in range(20):
            self.put(str(i), b"v" * 10000)
        file = io.BytesIO()
        self.client.snapshot(file)
        saved = file.getvalue()
        self.assertEqual(len(saved) % 512, 32)
        self.assertGreater(len(saved), 200000)
        self.assertEqual(hashlib.sha256(saved[:-32]).digest(), saved[-32:])


class Killed(Base):
    """kill -9 of the leader under each kind of use; it comes back after each test."""

    NODES = 3

    def test_calls_go_on(self):
        revisions = [self.put(f"k{i:02}", str(i)) for i in range(20)]
        self.kill_leader()
        after = self.retry(self.put, "after", "x")
        self.assertGreater(after, revisions[-1])
        found = self.retry(lambda: list(self.client.get_prefix(self.key("k"))))
        self.assertEqual([about.mod_revision for _, about in found], revisions)
        self.assertEqual(len(self.retry(lambda: list(self.client.members))), 3)
        has = self.client.transactions
        holds, _ = self.retry(functools.partial(self.client.transaction, compare=[has.value(self.key("k00")) == "0"],
                                                success=[has.put(self.key("t"), "1")], failure=[]))
        self.assertTrue(holds)

    def test_watch_goes_on(self):
        start = self.put("a", "0")
        values, after = [], start - 1
        seen = self.watch("a", start_revision=start)
        seen.wait_events(1)
        self.kill_leader()
        last = max(self.retry(self.put, "a", value) for value in "12")
        # Where its server died the library ends the watch; its user begins it again after what it saw.
        while after < last:
            seen.wait_for(lambda now: now.error is not None or (now.events and now.events[-1].mod_revision > after))
            for event in list(seen.events):
                if event.mod_revision > after:
                    values.append(event.value.decode())
                    after = event.mod_revision
            if seen.error is not None and after < last:
                seen = self.retry(self.watch, "a", start_revision=after + 1)
        # A put that was repeated may stand twice; nothing may be missing or out of order.
        self.assertEqual(values, sorted(values))
        self.assertEqual(sorted(set(values)), ["0", "1", "2"])

    def test_lock_and_lease_are_kept(self):
        lock = self.client.lock(self.prefix, ttl=20)
        self.assertTrue(lock.acquire(timeout=0))
        self.kill_leader()
        self.assertGreater(self.retry(lock.refresh)[0].TTL, 0)
        self.assertTrue(self.retry(lock.is_acquired))
        other = self.client.lock(self.prefix, ttl=20)
        self.assertFalse(self.retry(other.acquire, timeout=0))
        self.assertTrue(self.retry(lock.release))
        self.assertTrue(self.retry(other.acquire, timeout=0))
        self.assertTrue(self.retry(other.release))


class Ended(Base, unittest.TestCase):
    """A leader that is asked to end."""

    NODES = 3

    def test_what_is_under_way_is_answered(self):
        leader = self.cluster.leader()
        client = self.new_client([leader])
        acknowledged, refused = [], []
        begun = threading.Barrier(9)

        def write(number):
            begun.wait(LIMIT)
            for i in range(10_000):
                try:
                    client.put(self.key(f"{number}/{i:05}"), "v")
                except (etcd3.exceptions.Etcd3Exception, grpc.RpcError) as error:
                    refused.append(error)
                    return
                acknowledged.append(f"{number}/{i:05}")

        writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for writer in writers:
            writer.start()
        begun.wait(LIMIT)
        cluster.wait_until("writes are under way", lambda: len(acknowledged) > 100, LIMIT)
        self.addCleanup(self.cluster.wait_healthy)
        self.addCleanup(leader.start)
        self.assertEqual(leader.stop(), 0)
        for writer in writers:
            writer.join(LIMIT)
        self.assertEqual(len(refused), 8)
        others = self.new_client([server for server in self.cluster.servers if server is not leader])
        found = self.retry(lambda: {about.key.decode() for _, about in others.get_prefix(self.prefix, keys_only=True)})
        self.assertEqual({self.key(name) for name in acknowledged} - found, set())
        # Known as not applied, or cut at the end: at most the one that each writer had under way.
        self.assertLessEqual(len(found), len(acknowledged) + 8)


    def test_a_large_answer_is_sent_to_its_end(self):
        leader = self.cluster.leader()
        follower = next(server for server in self.cluster.servers if server is not leader)
        writer = self.new_client([leader])
        for i in range(40):
            writer.put(self.key(f"{i:02}"), "v" * 1_000_000)
        channel = grpc.insecure_channel(follower.endpoint, [("grpc.max_receive_message_length", -1)])
        self.addCleanup(channel.close)
        rpc = etcd3.etcdrpc
        self.addCleanup(self.cluster.wait_healthy)
        self.addCleanup(follower.start)
        request = rpc.RangeRequest(key=self.prefix.encode(), range_end=self.prefix.encode() + b"\xff")
        rpc.KVStub(channel).Range(rpc.RangeRequest(key=b"k"), timeout=LIMIT)
        answer = rpc.KVStub(channel).Range.future(request, timeout=LIMIT)
        cluster.wait_until("it is under way", lambda: answer.done() or self.calls_open(follower) > 0, LIMIT)
        self.assertEqual(follower.stop(), 0)
        self.assertEqual(len(answer.result().kvs), 40)

    @staticmethod
    def calls_open(server):
        with urllib.request.urlopen(f"http://{server.endpoint}/metrics", timeout=LIMIT) as metrics:
            for line in metrics.read().decode().splitlines():
                if line.startswith("conclave_calls_open "):
                    return int(line.split()[1])
        raise AssertionError("no conclave_calls_open")


class NotBegun(unittest.TestCase):
    """A server of a cluster that has not begun."""

    def test_a_stream_that_was_opened_before(self):
        if suite.OPTIONS.system != "conclave":
            self.skipTest("etcd begins by itself")
        servers = cluster.make(suite.OPTIONS, 1)
        self.addCleanup(servers.close)
        server, = servers.servers
        server.arguments = ["--name", server.name, "--join", f"{server.name}={cluster.HOST}:{server.peer_port}"]
        server.start()
        cluster.wait_until("it listens", server.listening)
        channel = grpc.insecure_channel(server.endpoint)
        self.addCleanup(channel.close)
        rpc = etcd3.etcdrpc
        create = rpc.WatchRequest(create_request=rpc.WatchCreateRequest(key=b"k"))

        def watch():
            """A stream whose first message is sent when it is asked for."""
            messages = queue.Queue()
            return messages, rpc.WatchStub(channel).Watch(iter(messages.get, None))

        messages, opened = watch()
        # It is there: whatever is asked behind it on the same connection is answered.
        with self.assertRaises(grpc.RpcError) as raised:
            rpc.KVStub(channel).Put(rpc.PutRequest(key=b"k"), timeout=LIMIT)
        refusal = (grpc.StatusCode.UNAVAILABLE, "the cluster has not begun: run `conclave init` once")
        self.assertEqual((raised.exception.code(), raised.exception.details()), refusal)
        subprocess.run([suite.OPTIONS.conclave, "init", "--endpoints", server.endpoint], check=True, timeout=LIMIT,
                       stdout=subprocess.DEVNULL)
        cluster.wait_until("it serves", server.healthy)
        # What it was opened on is no service yet: its client opens another.
        messages.put(create)
        with self.assertRaises(grpc.RpcError) as raised:
            next(opened)
        self.assertEqual((raised.exception.code(), raised.exception.details()), refusal)
        messages, opened = watch()
        messages.put(create)
        self.assertTrue(next(opened).created)
        opened.cancel()


class Minority(Base, unittest.TestCase):
    """One server of three, when the others are gone."""

    NODES = 3

    def test_who_requires_a_leader(self):
        stays = next(server for server in self.cluster.servers if server is not self.cluster.leader())
        channel = grpc.insecure_channel(stays.endpoint)
        self.addCleanup(channel.close)
        rpc = etcd3.etcdrpc
        kv = rpc.KVStub(channel)
        key = self.key("k").encode()
        requires = (("hasleader", "true"),)
        requests = queue.Queue()
        requests.put(rpc.WatchRequest(create_request=rpc.WatchCreateRequest(key=key)))
        self.addCleanup(requests.put, None)
        watch = rpc.WatchStub(channel).Watch(iter(requests.get, None), metadata=requires, timeout=LIMIT)
        self.assertTrue(next(watch).created)
        self.addCleanup(self.cluster.wait_healthy)
        for server in self.cluster.servers:
            if server is not stays:
                server.kill()
                self.addCleanup(server.start)
        no_leader = (grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader")
        self.refused(*no_leader, next, watch)
        self.refused(*no_leader, lambda: kv.Put(rpc.PutRequest(key=key), metadata=requires, timeout=LIMIT))
        # Who does not require it waits for one; and what is here is told.
        with self.assertRaises(grpc.RpcError) as raised:
            kv.Put(rpc.PutRequest(key=key), timeout=0.5)
        self.assertEqual(raised.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        self.assertEqual(kv.Range(rpc.RangeRequest(key=key, serializable=True), timeout=LIMIT).count, 0)


class OneServer(Calls, unittest.TestCase):
    NODES = 1


class OneServerTls(Calls, unittest.TestCase):
    NODES = 1
    TLS = True


class ThreeServers(Calls, unittest.TestCase):
    NODES = 3


class ThreeServersTls(Calls, unittest.TestCase):
    NODES = 3
    TLS = True


class LeaderKilled(Killed, unittest.TestCase):
    pass


class LeaderKilledTls(Killed, unittest.TestCase):
    TLS = True


def quiet_at_the_end(arguments):
    """The library's watch thread ends by an error once its client is closed; any other thread's end is told."""
    if not (arguments.thread.name.startswith("etcd3_watch_") and "Channel closed" in str(arguments.exc_value)):
        threading.__excepthook__(arguments)


if __name__ == "__main__":
    threading.excepthook = quiet_at_the_end
    suite.main(__doc__)
