"""Clusters of real servers for tests: Conclave, or etcd to validate the tests themselves.

Owns the servers' processes, ports and a directory; ends each process by its own id and never anything else. Every wait
has a limit. Ports lie below the range that the kernel takes for outgoing connections, so that a server that was killed
finds its port free again.
"""
import argparse
import ctypes
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.request

HOST = "127.0.0.1"
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def end_with_parent():
    """In a child before exec: a test that is killed leaves no server behind."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Timeout(Exception):
    """Something that had to happen did not within its limit."""


def free_ports(count):
    ports = []
    held = []
    try:
        for _ in range(2000):
            if len(ports) == count:
                return ports
            port = random.SystemRandom().randrange(12000, 32000)
            probe = socket.socket()
            try:
                probe.bind((HOST, port))
            except OSError:
                probe.close()
                continue
            held.append(probe)
            ports.append(port)
        raise Timeout("no free ports")
    finally:
        for probe in held:
            probe.close()


def wait_until(what, condition, limit=30.0, pause=0.02):
    """The condition's first true value; Timeout after `limit` seconds. The condition may raise OSError."""
    end = time.monotonic() + limit
    last = None
    while time.monotonic() < end:
        try:
            value = condition()
            if value:
                return value
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            last = error
        time.sleep(pause)
    raise Timeout(f"{what}: not within {limit} s" + (f" ({last})" if last else ""))


class Server:
    """One server: started, killed, started again on the same ports and directory."""

    def __init__(self, cluster, name, client_port, peer_port):
        self.cluster = cluster
        self.name = name
        self.client_port = client_port
        self.peer_port = peer_port
        self.data = cluster.directory / name
        self.log = cluster.directory / f"{name}.log"
        self.out = cluster.directory / f"{name}.out"
        self.arguments = None  # of `conclave start`, for a server that joins later: who it is, and where it looks
        self.process = None

    @property
    def endpoint(self):
        return f"{HOST}:{self.client_port}"

    @property
    def pid(self):
        return self.process.pid

    def running(self):
        return self.process is not None and self.process.poll() is None

    def start(self):
        assert not self.running()
        with open(self.log, "ab") as log, open(self.out, "wb") as out:
            self.process = subprocess.Popen(self.cluster.command(self), stdin=subprocess.DEVNULL, stdout=out, stderr=log,
                                            preexec_fn=end_with_parent)

    def listening(self):
        if not self.running():
            raise Timeout(f"{self.name} ended with {self.process.returncode}: {self.last_words()}")
        with socket.create_connection((HOST, self.client_port), timeout=1):
            pass
        return self.cluster.system != "conclave" or b"ready " in self.out.read_bytes()

    def healthy(self):
        if not self.running():
            raise Timeout(f"{self.name} ended with {self.process.returncode}: {self.last_words()}")
        tls = self.cluster.tls
        url = f"{'https' if tls else 'http'}://{self.endpoint}/health"
        with urllib.request.urlopen(url, timeout=2, context=tls.context() if tls else None) as answer:
            return json.load(answer).get("health") == "true"

    def last_words(self):
        return self.log.read_bytes()[-2000:].decode(errors="replace")

    def kill(self):
        """kill -9, and it is gone when this returns."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=30)

    def stop(self, limit=20.0):
        """SIGTERM; SIGKILL after the limit. The exit code."""
        if self.process is None:
            return None
        if self.running():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=limit)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.returncode

    def cpu_seconds(self):
        """User and system time of the process so far."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Certificates:
    """A CA of our own, and what `conclave cert` issues with it: for each server and for one client."""

    def __init__(self, binary, directory):
        self.binary = str(binary)
        self.directory = pathlib.Path(directory)
        self.run("init")
        self.issue("tester", "--client")

    def run(self, verb, *arguments):
        subprocess.run([self.binary, "cert", verb, *arguments, "--dir", str(self.directory)], check=True, timeout=30,
                       stdout=subprocess.DEVNULL)

    def issue(self, name, *arguments):
        self.run("issue", name, *arguments)

    def issue_server(self, name, *more):
        self.issue(name, "--host", HOST, *more)
        self.issue(name, "--peer", *more)

    def path(self, name):
        return str(self.directory / name)

    def server_arguments(self, name):
        found = []
        for port, kind in (("client", "server"), ("peer", "peer")):
            found += [f"--{port}-cert", self.path(f"{kind}-{name}.pem"), f"--{port}-key", self.path(f"{kind}-{name}.key"),
                      f"--{port}-ca", self.path("ca.pem")]
        return found

    def client_arguments(self):
        """Of etcdctl and of conclave alike."""
        return ["--cacert", self.path("ca.pem"), "--cert", self.path("client-tester.pem"), "--key",
                self.path("client-tester.key")]

    def context(self):
        context = ssl.create_default_context(cafile=self.path("ca.pem"))
        context.load_cert_chain(self.path("client-tester.pem"), self.path("client-tester.key"))
        return context


class Cluster:
    """Servers n1, n2 ... of one system. A context manager: leaves no process, and no directory unless it was given one."""

    def __init__(self, system, nodes, binary, directory=None, environment=None, tls=False):
        self.system = system
        self.binary = str(binary)
        self._temporary = directory is None
        if directory is None:
            self.directory = pathlib.Path(tempfile.mkdtemp(prefix=f"conclave-test-{system}-"))
        else:
            self.directory = pathlib.Path(directory)
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory.mkdir(parents=True)
        self.environment = environment or {}
        self.tls = None
        if tls:
            self.tls = Certificates(self.binary, self.directory / "tls")
            for i in range(nodes):
                self.tls.issue_server(f"n{i + 1}")
        ports = free_ports(2 * nodes)
        self.servers = [Server(self, f"n{i + 1}", ports[2 * i], ports[2 * i + 1]) for i in range(nodes)]
        self.first = nodes  # so many the cluster began with

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def command(self, server):
        if self.system == "etcd":
            client, peer = f"http://{server.endpoint}", f"http://{HOST}:{server.peer_port}"
            members = ",".join(f"{s.name}=http://{HOST}:{s.peer_port}" for s in self.servers)
            return [self.binary, "--name", server.name, "--data-dir", str(server.data), "--listen-client-urls", client,
                    "--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                    "--initial-cluster", members, "--initial-cluster-state", "new", "--logger", "zap",
                    "--log-level", "warn"]
        arguments = [self.binary, "start", "--data", str(server.data), "--client-listen", server.endpoint]
        if self.tls:
            arguments += self.tls.server_arguments(server.name)
        if server.arguments is not None:
            return arguments + server.arguments
        if self.first == 1:
            return arguments + ["--name", server.name, "--peer-listen", f"{HOST}:{server.peer_port}"]
        members = ",".join(f"{s.name}={HOST}:{s.peer_port}" for s in self.servers[:self.first])
        return arguments + ["--name", server.name, "--join", members]

    def start(self):
        for server in self.servers:
            server.start()
        for server in self.servers:
            wait_until(f"{server.name} listens", server.listening)
        if self.system == "conclave" and len(self.servers) > 1:
            done = subprocess.run([self.binary, "init", "--endpoints", self.servers[0].endpoint,
                                   *self.client_arguments()], timeout=60,
                                  capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise Timeout(f"init ended with {done.returncode}: {done.stderr}")
        self.wait_healthy()

    def wait_healthy(self, limit=60.0):
        for server in self.servers:
            if server.running():
                wait_until(f"{server.name} is healthy", server.healthy, limit)

    def client_arguments(self):
        """What a client needs beside the endpoints."""
        return self.tls.client_arguments() if self.tls else []

    @property
    def endpoints(self):
        return ",".join(server.endpoint for server in self.servers)

    def leader(self, limit=30.0):
        """The server that calls itself leader; with several, that of the newest term."""
        return wait_until("there is a leader", self._leader, limit)

    def _leader(self):
        newest, found = -1, None
        for server in self.servers:
            if not server.running():
                continue
            done = subprocess.run(["etcdctl", "--endpoints", server.endpoint, "--command-timeout=2s",
                                   *self.client_arguments(), "endpoint", "status", "-w", "json"], capture_output=True, timeout=10, check=False,
                                  env={**os.environ, "ETCDCTL_API": "3"})
            if done.returncode != 0:
                continue
            status = json.loads(done.stdout)[0]["Status"]
            if status.get("leader", 0) == status["header"]["member_id"] and status["raftTerm"] > newest:
                newest, found = status["raftTerm"], server
        return found

    def cpu_seconds(self):
        return sum(server.cpu_seconds() for server in self.servers if server.running())

    def close(self):
        for server in self.servers:
            if server.running():
                server.process.send_signal(signal.SIGTERM)
        for server in self.servers:
            server.stop(limit=10)
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)


def add_arguments(parser):
    """What every program that starts clusters understands."""
    parser.add_argument("--system", choices=["conclave", "etcd"], default="conclave", help="whose servers")
    root = pathlib.Path(__file__).resolve().parents[2]
    parser.add_argument("--conclave", default=str(root / "build/release/conclave"), help="the conclave binary")
    parser.add_argument("--etcd", default="/usr/bin/etcd", help="the etcd binary")


def make(options, nodes, **more):
    return Cluster(options.system, nodes, options.conclave if options.system == "conclave" else options.etcd, **more)


def parse_known(description):
    """For unittest programs: our arguments, and the rest for unittest."""
    parser = argparse.ArgumentParser(description=description)
    add_arguments(parser)
    return parser.parse_known_args()
