#!/usr/bin/python3
"""Three servers with TLS between them and to clients: etcdctl and conclave over it, who is kept out, and a change of
all certificates and of the CA under a watch that goes on.

tls_test.py [--conclave BINARY] [unittest's arguments]
"""
import json
import os
import pathlib
import signal
import subprocess
import threading
import unittest
import urllib.error
import urllib.request

import cluster
import suite

LIMIT = suite.LIMIT


class Tls(suite.Clustered, unittest.TestCase):
    NODES = 3
    TLS = True

    def run_program(self, *command):
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("CONCLAVE_", "ETCDCTL_"))}
        return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, stdin=subprocess.DEVNULL,
                              env={**environment, "ETCDCTL_API": "3"}, check=False)

    def etcdctl_command(self, *arguments, certificates=None):
        given = self.cluster.client_arguments() if certificates is None else certificates
        return ["etcdctl", "--endpoints", self.cluster.endpoints, "--command-timeout=5s", "--dial-timeout=2s", *given,
                *arguments]

    def etcdctl(self, *arguments, **more):
        return self.run_program(*self.etcdctl_command(*arguments, **more))

    def conclave(self, *arguments, certificates=None, scheme=""):
        given = self.cluster.client_arguments() if certificates is None else certificates
        endpoints = ",".join(scheme + server.endpoint for server in self.cluster.servers)
        # Before the command of a lock.
        split = arguments.index("--") if "--" in arguments else len(arguments)
        return self.run_program(suite.OPTIONS.conclave, *arguments[:split], "--endpoints", endpoints, *given,
                                *arguments[split:])

    def must(self, done):
        self.assertEqual(done.returncode, 0, f"{done.args}: {done.stdout}{done.stderr}")
        return done.stdout

    def test_clients_work(self):
        self.must(self.etcdctl("put", "a", "1"))
        self.assertEqual(self.must(self.conclave("kv", "get", "a", "-o", "value")).strip(), "1")
        self.must(self.conclave("kv", "put", "a", "2", scheme="https://"))
        self.assertEqual(self.must(self.etcdctl("get", "a", "--print-value-only")).strip(), "2")
        self.assertEqual(self.must(self.conclave("lock", "l", "--", "echo", "held")).strip(), "held")
        self.assertEqual(json.loads(self.must(self.conclave("status", "-o", "json")))["reachable_members"], 3)
        members = json.loads(self.must(self.etcdctl("member", "list", "-w", "json")))["members"]
        for member in members:
            for url in member["clientURLs"] + member["peerURLs"]:
                self.assertTrue(url.startswith("https://"), url)

    def test_strangers_are_kept_out(self):
        tls = self.cluster.tls
        bare = self.conclave("kv", "get", "a", certificates=[])
        self.assertEqual(bare.returncode, 69, bare.stderr)
        nobody = self.conclave("kv", "get", "a", certificates=["--cacert", tls.path("ca.pem")])
        self.assertEqual(nobody.returncode, 69, nobody.stderr)
        self.assertIn("TLS: ", nobody.stderr)
        stranger = self.conclave("kv", "get", "a", certificates=[], scheme="https://")
        self.assertEqual(stranger.returncode, 69, stranger.stderr)
        self.assertIn("certificate is refused", stranger.stderr)
        self.assertNotEqual(self.etcdctl("get", "a", certificates=[]).returncode, 0)
        with self.assertRaises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://{self.cluster.servers[0].endpoint}/health", timeout=5)
        with refused.exception as answer:
            self.assertEqual(answer.code, 400)
            self.assertIn(b"TLS", answer.read())

    def test_a_leader_may_die(self):
        leader = self.cluster.leader()
        self.must(self.etcdctl("put", "before", "1"))
        leader.kill()
        try:
            cluster.wait_until("a put after the leader's death", lambda: self.etcdctl("put", "after", "1").returncode == 0,
                               LIMIT)
            self.assertEqual(self.must(self.etcdctl("get", "before", "--print-value-only")).strip(), "1")
        finally:
            leader.start()
            self.cluster.wait_healthy()

    def logged(self, server, words, since):
        return words in server.log.read_bytes()[since:]

    def reload(self, words):
        for server in self.cluster.servers:
            since = server.log.stat().st_size
            server.process.send_signal(signal.SIGHUP)
            cluster.wait_until(f"{server.name} has answered the reload",
                               lambda s=server, at=since: self.logged(s, words, at), LIMIT)

    def test_certificates_change_under_a_watch(self):
        tls = self.cluster.tls
        lines = []
        watch = subprocess.Popen(self.etcdctl_command("watch", "w"), stdout=subprocess.PIPE, text=True,
                                 env={**os.environ, "ETCDCTL_API": "3"}, preexec_fn=cluster.end_with_parent)
        reader = threading.Thread(target=lambda: lines.extend(iter(watch.stdout.readline, "")), daemon=True)
        reader.start()
        try:
            # Whether the watch stands already: puts until it tells of one.
            cluster.wait_until("the watch stands", lambda: self.etcdctl("put", "w", "0").returncode == 0 and lines, LIMIT)
            key = pathlib.Path(tls.path("server-n1.key"))
            good = key.read_bytes()
            key.write_bytes(b"no key\n")
            since = self.cluster.servers[0].log.stat().st_size
            self.cluster.servers[0].process.send_signal(signal.SIGHUP)
            cluster.wait_until("the bad key is refused",
                               lambda: self.logged(self.cluster.servers[0], b"reload refused", since), LIMIT)
            key.write_bytes(good)
            self.must(self.etcdctl("put", "w", "still"))
            old = pathlib.Path(tls.path("old.pem"))
            old.write_bytes(pathlib.Path(tls.path("ca.pem")).read_bytes())
            tls.run("init", "--force")
            for server in self.cluster.servers:
                tls.issue_server(server.name, "--force")
            tls.issue("tester", "--client", "--force")
            self.reload(b"reloaded")
            self.must(self.etcdctl("put", "w", "new"))
            cluster.wait_until("the watch tells of it", lambda: "new\n" in lines, LIMIT)
            believer = self.conclave("kv", "get", "w", certificates=["--cacert", str(old)])
            self.assertEqual(believer.returncode, 69, believer.stderr)
            self.assertIsNone(watch.poll())
        finally:
            watch.kill()
            watch.wait(timeout=LIMIT)
            reader.join(timeout=LIMIT)
            watch.stdout.close()


if __name__ == "__main__":
    suite.main(__doc__)
