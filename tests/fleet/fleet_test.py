#!/usr/bin/python3
"""A mixed fleet on one name: etcd's Go client (Mutex and Election), `etcdctl lock` and `etcdctl elect`, the lock service
as JSON, and our own clients (locks, and elections with priorities and transfers) contend for it on three real servers,
while workers are killed and paused and the leader is killed. A resource that they all work on judges.

fleet_test.py --conclave BINARY --native BINARY --build DIRECTORY [--seconds N] [--seed N]

What the resource holds against them: a token that two bring; a token below one that was there before, from somebody who
was not disturbed; somebody who comes in while another is inside who was not disturbed. Disturbed is who was paused or
killed, or whose claim was taken away, since he came in: such a one's writes with an old token must be refused, and that is
counted.
"""
import argparse
import os
import pathlib
import random
import signal
import socketserver
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "interop"))
import cluster  # noqa: E402  (the path is set above)
import go_test  # noqa: E402

TTL = 5


class Resource:
    """What all work on. Lets in whoever has a token that is not below the highest."""

    def __init__(self):
        self.mutex = threading.Lock()
        self.highest = 0
        self.owner_of = {}      # by token
        self.inside = None      # (token, owner)
        self.disturbed = {}     # owner: number of times
        self.entered_at = {}    # owner: that number when it came in
        self.violations = []
        self.entries = {}       # by owner
        self.refused = 0
        self.left = 0

    def disturb(self, owner):
        with self.mutex:
            self.disturbed[owner] = self.disturbed.get(owner, 0) + 1

    def was_disturbed(self, owner):
        return self.disturbed.get(owner, 0) != self.entered_at.get(owner, 0)

    def ask(self, what, token, owner):
        with self.mutex:
            if what == "leave":
                # It was told, or found, that it does not hold any more.
                self.left += 1
                if self.inside == (token, owner):
                    self.inside = None
                return "ok"
            known = self.owner_of.setdefault(token, owner)
            if known != owner:
                self.violations.append(f"token {token} of {known} is brought by {owner} too")
            if token < self.highest:
                self.refused += 1
                # Who was disturbed before he came in may be late as well.
                if not self.was_disturbed(owner):
                    self.violations.append(f"{owner} comes with {token}, after {self.highest}, and was not disturbed")
                if what == "enter":
                    self.entered_at[owner] = self.disturbed.get(owner, 0)
                return "stale"
            self.highest = token
            if what == "enter":
                if self.inside is not None and not self.was_disturbed(self.inside[1]):
                    self.violations.append(f"{owner} comes in with {token} while {self.inside[1]} is, with {self.inside[0]}")
                self.inside = (token, owner)
                self.entered_at[owner] = self.disturbed.get(owner, 0)
                self.entries[owner] = self.entries.get(owner, 0) + 1
            elif what == "exit" and self.inside == (token, owner):
                self.inside = None
            return "ok"


def serve(resource):
    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            try:
                for line in self.rfile:
                    what, token, owner = line.decode().split()
                    self.wfile.write(resource.ask(what, int(token), owner).encode() + b"\n")
            except (OSError, ValueError):
                pass

    class Listener(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    listener = Listener((cluster.HOST, 0), Handler)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    return listener


class Worker:
    def __init__(self, kind, number, command, may_die):
        self.kind = kind
        self.number = number
        self.command = command
        self.may_die = may_die
        self.lives = 0
        self.process = None

    @property
    def owner(self):
        return f"{self.kind}-{self.number}.{self.lives}"

    def start(self):
        self.lives += 1
        command = [part.replace("@OWNER", self.owner) for part in self.command]
        # A group of its own: what it starts is killed and paused with it.
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL, start_new_session=True)

    def signal(self, number):
        os.killpg(self.process.pid, number)

    def end(self):
        if self.process is None:
            return
        try:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(timeout=30)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    cluster.add_arguments(parser)
    parser.add_argument("--native", type=pathlib.Path)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--without", action="append", default=[], metavar="KIND", help="of workers")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    go = go_test.build(options.build.resolve(), "fleet_go", HERE / "go")
    resource = Resource()
    listener = serve(resource)
    where = f"{cluster.HOST}:{listener.server_address[1]}"
    with cluster.make(options, 3) as servers:
        endpoints = ",".join(server.endpoint for server in servers.servers)
        rest = [endpoints, "fleet", where, "@OWNER"]
        python = [sys.executable, str(HERE / "worker.py")]
        native = [str(options.native)]
        kinds = [("go-mutex", [str(go), "mutex", *rest], True), ("go-election", [str(go), "election", *rest], True),
                 ("rpc", [*python, "rpc", *rest], True), ("etcdctl-lock", [*python, "lock", *rest], True),
                 # Its session has a minute, which cannot be chosen: killed, it would hold up all the others for that long.
                 ("etcdctl-elect", [*python, "elect", *rest], False), ("native-lock", [*native, "lock", *rest], True),
                 ("native-election", [*native, "election", *rest], True)]
        kinds = [kind for kind in kinds if kind[0] not in options.without]
        workers = [Worker(kind, number, command, may_die) for kind, command, may_die in kinds for number in (1, 2)
                   if number == 1 or kind != "etcdctl-elect"]
        paused = {}  # worker: until when
        counts = {"killed": 0, "paused": 0, "leaders killed": 0}
        try:
            for worker in workers:
                worker.start()
            end = time.monotonic() + options.seconds
            next_act = time.monotonic() + 3
            next_leader = time.monotonic() + options.seconds / 3
            dead = None
            while time.monotonic() < end and not resource.violations:
                time.sleep(0.05)
                now = time.monotonic()
                for worker in [worker for worker, until in paused.items() if until <= now]:
                    del paused[worker]
                    worker.signal(signal.SIGCONT)
                if dead is not None and now >= dead[1]:
                    dead[0].start()
                    dead = None
                if now >= next_leader:
                    next_leader = now + options.seconds / 3
                    leader = servers.leader()
                    leader.kill()
                    dead = (leader, now + 3)
                    counts["leaders killed"] += 1
                if now < next_act:
                    continue
                next_act = now + draw.uniform(0.5, 2.0)
                worker = draw.choice([worker for worker in workers if worker not in paused])
                resource.disturb(worker.owner)
                if worker.may_die and draw.random() < 0.5:
                    worker.end()
                    worker.start()
                    counts["killed"] += 1
                else:
                    worker.signal(signal.SIGSTOP)
                    paused[worker] = now + draw.uniform(0.2, 2 * TTL)
                    counts["paused"] += 1
        finally:
            for worker in workers:
                worker.end()
            listener.shutdown()
    print(f"{sum(resource.entries.values())} entries, tokens up to {resource.highest}, {resource.refused} refused as stale, {resource.left} who left early; "
          + ", ".join(f"{count} {what}" for what, count in counts.items()))
    kinds_in = {}
    for owner, count in resource.entries.items():
        kind = owner.rsplit("-", 1)[0]
        kinds_in[kind] = kinds_in.get(kind, 0) + count
    print(", ".join(f"{kind} {count}" for kind, count in sorted(kinds_in.items())))
    failures = list(resource.violations)
    for kind, _, _ in kinds:
        if not kinds_in.get(kind):
            failures.append(f"{kind} never got in")
    for failure in failures:
        print(f"FAIL: {failure}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
