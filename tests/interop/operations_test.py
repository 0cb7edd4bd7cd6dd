#!/usr/bin/python3
"""What operators set and look at, on real servers: where clients are told to come, the configuration read again by SIGHUP,
and what /metrics says of links between servers and of descriptors.

operations_test.py [--conclave BINARY] [unittest's arguments]
"""
import json
import os
import re
import signal
import socket
import subprocess
import sys
import unittest
import urllib.request

import cluster

OPTIONS = None
LIMIT = 30
USAGE = 64


class Operated(unittest.TestCase):
    NODES = 1

    def setUp(self):
        self.cluster = cluster.make(OPTIONS, self.NODES)
        self.addCleanup(self.cluster.close)
        self.server = self.cluster.servers[0]

    def start_with(self, *arguments, listen=cluster.HOST):
        """The one server, by a command line of its own."""
        self.cluster.command = lambda server: [
            OPTIONS.conclave, "start", "--name", server.name, "--data", str(server.data), "--peer-listen",
            f"{cluster.HOST}:{server.peer_port}", "--client-listen", f"{listen}:{server.client_port}", *arguments]
        self.cluster.start()

    def log(self):
        return self.server.log.read_text()

    def signal_and_wait(self, words):
        since = self.server.log.stat().st_size
        self.server.process.send_signal(signal.SIGHUP)
        cluster.wait_until(f"the log says {words}", lambda: words in self.server.log.read_bytes()[since:].decode(), LIMIT)
        return self.server.log.read_bytes()[since:].decode()

    def client_urls(self):
        done = subprocess.run(["etcdctl", "--endpoints", self.server.endpoint, "member", "list", "-w", "json"],
                              capture_output=True, text=True, timeout=LIMIT, check=True,
                              env={**os.environ, "ETCDCTL_API": "3"})
        return json.loads(done.stdout)["members"][0]["clientURLs"]

    def metrics(self):
        """Values by name and labels."""
        with urllib.request.urlopen(f"http://{self.server.endpoint}/metrics", timeout=LIMIT) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


class ClientUrls(Operated):
    def wait_urls(self, urls):
        cluster.wait_until(f"members' lists say {urls}", lambda: self.client_urls() == urls, LIMIT)

    def test_what_is_said_is_published_and_changed_by_the_next_start(self):
        urls = [f"http://127.0.0.1:{self.server.client_port}", f"http://localhost:{self.server.client_port}"]
        self.start_with("--client-advertise", ",".join(urls))
        self.wait_urls(urls)
        # What is listed can be dialled: this is what a client's Sync() does with it.
        done = subprocess.run(["etcdctl", "--endpoints", self.server.endpoint, "endpoint", "health", "--cluster"],
                              capture_output=True, text=True, timeout=LIMIT, check=False,
                              env={**os.environ, "ETCDCTL_API": "3"})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((done.stdout + done.stderr).count("is healthy"), 2)
        self.assertEqual(self.server.stop(), 0)
        self.start_with()
        self.wait_urls(urls[:1])
        self.assertNotIn("client_url_guessed", self.log())

    def test_a_wildcard_is_guessed_and_told(self):
        self.start_with("--insecure-plaintext", listen="0.0.0.0")
        self.wait_urls([f"http://{socket.gethostname()}:{self.server.client_port}"])
        self.assertRegex(self.log(), r"warning .*--client-advertise.* event=client_url_guessed url=http://")

    def test_what_cannot_be_dialled_is_refused(self):
        for url, why in (("n1:2379", "is not http://HOST:PORT or https://HOST:PORT"),
                         ("http://0.0.0.0:2379", "names no machine that a client could dial")):
            done = subprocess.run([OPTIONS.conclave, "start", "--data", str(self.server.data), "--client-advertise", url],
                                  capture_output=True, text=True, timeout=LIMIT, check=False)
            self.assertEqual(done.returncode, USAGE)
            self.assertIn(f"cannot start: --client-advertise: '{url}' {why}", done.stderr)


class Reload(Operated):
    def setUp(self):
        super().setUp()
        self.file = self.cluster.directory / "conclave.toml"

    def test_the_level_of_the_log_is_read_again(self):
        self.file.write_text("log_level = 'info'\nhistory_mib = 100\n")
        self.start_with("--config", str(self.file))
        self.file.write_text("log_level = 'error'\nhistory_mib = 100\n")
        # Told although it is what the new level would not tell.
        self.assertIn("event=reloaded log_level=error\n", self.signal_and_wait("event=reloaded"))
        self.file.write_text("log_level = 'info'\nhistory_mib = 200\nclient_advertise = 'http://localhost:1'\n")
        told = self.signal_and_wait("event=reloaded log_level=info")
        self.assertIn("for_next_start=client_advertise,history_mib", told)
        self.assertEqual(self.server.stop(), 0)

    def test_a_bad_file_is_refused_as_a_whole(self):
        self.file.write_text("log_level = 'warning'\n")
        self.start_with("--config", str(self.file))
        for text, why in (("log_level = 'error'\nhistory_mib = 'much'\n", "conclave.toml:2: "),
                          ("log_level = 'error'\nlog_levle = 'info'\n", "there is no 'log_levle'; is 'log_level' meant?"),
                          ("log_level = 'error'\nclient_advertise = 'nowhere'\n", "'nowhere' is not http://HOST:PORT"),
                          ("log_level = 'loud'\n", "conclave.toml:1: "),
                          ("log_level = \n", "line 1: ")):
            self.file.write_text(text)
            told = self.signal_and_wait("event=reload_refused")
            self.assertIn("error reload refused, what was loaded stays", told)
            self.assertIn(why, told)
        # Still at the level warning: 'error' was taken from none of them, and a warning is told.
        self.file.unlink()
        self.assertIn("cannot be read", self.signal_and_wait("event=reload_refused"))
        self.assertNotIn("event=reloaded", self.log())
        self.assertNotIn(" info ", self.log())
        self.file.write_text("log_level = 'info'\n")
        self.assertIn("event=reloaded log_level=info", self.signal_and_wait("event=reloaded"))

    def test_a_flag_wins_over_the_file(self):
        self.file.write_text("log_level = 'error'\n")
        self.start_with("--config", str(self.file), "--log-level", "info")
        self.assertIn("event=reloaded log_level=info", self.signal_and_wait("event=reloaded"))


class Links(Operated):
    NODES = 3

    def test_metrics_of_links_and_descriptors(self):
        self.cluster.start()

        def measured():
            counts = [value for name, value in self.metrics().items()
                      if name.startswith("etcd_network_peer_round_trip_time_seconds_count")]
            return len(counts) == 2 and min(counts) >= 1

        cluster.wait_until("each peer has answered a ping", measured, LIMIT)
        metrics = self.metrics()
        for name in metrics:
            found = re.fullmatch(r'etcd_network_peer_round_trip_time_seconds_count\{To="([0-9a-f]+)"\}', name)
            if found is None:
                continue
            prefix = "etcd_network_peer_round_trip_time_seconds"
            bounds = [metrics[f'{prefix}_bucket{{To="{found[1]}",le="{0.0001 * 2**i:g}"}}'] for i in range(16)]
            self.assertEqual(bounds, sorted(bounds))
            self.assertEqual(metrics[f'{prefix}_bucket{{To="{found[1]}",le="+Inf"}}'], metrics[name])
            self.assertGreater(metrics[f'{prefix}_sum{{To="{found[1]}"}}'], 0)
            local = next(key for key in metrics if key.startswith("etcd_server_id")).split('"')[1]
            self.assertEqual(metrics[f'etcd_network_active_peers{{Local="{local}",Remote="{found[1]}"}}'], 1)
        listed = len(os.listdir(f"/proc/{self.server.pid}/fd"))
        self.assertEqual(metrics["process_open_fds"], metrics["os_fd_used"])
        # The connection that asked is one of them there.
        self.assertLess(abs(metrics["process_open_fds"] - listed), 8)
        self.assertGreater(metrics["os_fd_limit"], metrics["os_fd_used"])

        other = self.cluster.servers[1]
        other.kill()
        broken = "etcd_network_disconnected_peers_total"
        cluster.wait_until("the broken link is counted", lambda: any(
            value >= 1 for name, value in self.metrics().items() if name.startswith(broken)), LIMIT)
        self.assertEqual(sorted(value for name, value in self.metrics().items()
                                if name.startswith("etcd_network_active_peers")), [0, 1])


def main():
    global OPTIONS
    OPTIONS, rest = cluster.parse_known(__doc__)
    program = unittest.main(argv=[sys.argv[0], *rest], exit=False, verbosity=2)
    sys.exit(0 if program.result.wasSuccessful() else 1)


if __name__ == "__main__":
    main()
