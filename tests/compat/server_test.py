#!/usr/bin/python3
"""The server itself on a data directory that was written at feature level 1: it serves what is there, goes on with it,
and refuses one of a later version with a word that says so, leaving it as it is.

server_test.py [--conclave BINARY] [unittest's arguments]
"""
import base64
import json
import pathlib
import shutil
import struct
import subprocess
import sys
import unittest
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "interop"))
import cluster  # noqa: E402  pylint: disable=wrong-import-position

OPTIONS = None
LOCAL_IO = 74


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


class Directory(unittest.TestCase):
    def setUp(self):
        self.cluster = cluster.make(OPTIONS, 1)
        self.addCleanup(self.cluster.close)
        self.server = self.cluster.servers[0]
        shutil.copytree(HERE / "golden/1/data", self.server.data)

    def ask(self, path, body):
        request = urllib.request.Request(f"http://{self.server.endpoint}{path}", json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def get(self, key):
        found = self.ask("/v3/kv/range", {"key": base64.b64encode(key.encode()).decode()}).get("kvs", [])
        return base64.b64decode(found[0]["value"]).decode() if found else None

    def test_what_was_written_is_served_and_gone_on_with(self):
        self.cluster.start()
        for _ in range(2):
            self.assertEqual(self.get("greeting"), "hello again")
            self.assertEqual(self.get("session/a"), "leased")
            self.assertEqual(self.get("session/b"), "in it")
            self.assertEqual(self.get("last"), "the newest")
            self.assertIsNone(self.get("gone"))
            self.assertIsNone(self.get("internal"))
            lease = self.ask("/v3/lease/timetolive", {"ID": "7", "keys": True})
            self.assertEqual(lease["grantedTTL"], "3600")
            self.assertEqual([base64.b64decode(key).decode() for key in lease["keys"]], ["session/a"])
            self.assertEqual(lease["header"]["cluster_id"], str(0x1122334455667788))
            done = subprocess.run([OPTIONS.conclave, "kv", "put", "later", "written", "--endpoints",
                                   self.server.endpoint], capture_output=True, text=True, timeout=30, check=False)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(self.get("later"), "written")
            self.assertEqual(self.server.stop(), 0)
            self.assertNotIn(b"Z error ", self.server.log.read_bytes())
            self.cluster.start()

    def refused(self):
        before = {path: path.read_bytes() for path in self.server.data.rglob("*") if path.is_file()}
        self.server.start()
        self.assertEqual(self.server.process.wait(timeout=30), LOCAL_IO)
        for path, content in before.items():
            # The identity counts its starts before anything else is read.
            if path.name != "identity":
                self.assertEqual(path.read_bytes(), content, path)
        return self.server.last_words()

    def test_a_later_log_is_refused(self):
        for name in ("manifest-a", "manifest-b"):
            path = self.server.data / "wal" / name
            content = bytearray(path.read_bytes())
            covered = struct.unpack_from("<I", content, 8)[0] - 4
            struct.pack_into("<I", content, 4, 2)
            struct.pack_into("<I", content, covered, crc32c(content[:covered]))
            path.write_bytes(content)
        self.assertIn("cannot start: manifest of version 2", self.refused())

    def test_a_later_identity_is_refused(self):
        path = self.server.data / "identity"
        before = path.read_text()
        path.write_text(before.replace("identity 1", "identity 2"))
        self.assertIn("cannot start: the file identity is of version 2: a later build wrote it", self.refused())
        self.assertEqual(path.read_text(), before.replace("identity 1", "identity 2"))


if __name__ == "__main__":
    OPTIONS, rest = cluster.parse_known(__doc__)
    unittest.main(argv=[sys.argv[0], *rest])
