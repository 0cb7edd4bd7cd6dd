#!/usr/bin/python3
"""kill -9 of real servers under load: nothing acknowledged is lost, no revision goes back, and how long writes stood still.

kill_loop.py [--system conclave|etcd] [--conclave BINARY] --writers BINARY [--kills 50] [--seed S] [--clients 16]

A cluster of three; sixteen writers (writers.cc, which holds what must be true); then again and again a server is killed,
every other time the leader, and started again a little later. Prints each gap in the writes and, at the end, their median
and maximum. Exit code 1: something acknowledged is not there, or went back.
"""
import argparse
import json
import pathlib
import random
import re
import statistics
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "interop"))
import cluster  # noqa: E402


class Violation(Exception):
    pass


class Writers:
    def __init__(self, binary, endpoints, clients):
        self.process = subprocess.Popen([binary, endpoints, str(clients)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, bufsize=1, preexec_fn=cluster.end_with_parent)
        self._lines = []
        self._arrived = threading.Condition()
        self._over = False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            with self._arrived:
                self._lines.append(line.strip())
                self._arrived.notify_all()
        with self._arrived:
            self._over = True
            self._arrived.notify_all()

    def ask(self, command, answer, limit=90):
        """Sends the command; the line that begins with `answer`, in the order asked."""
        try:
            self.process.stdin.write(command + "\n")
        except OSError:
            pass  # it has said why it ended
        with self._arrived:
            self._arrived.wait_for(lambda: self._lines or self._over, limit)
            if not self._lines:
                raise Violation(f"no answer to {command}: the writers {'have ended' if self._over else 'say nothing'}")
            line = self._lines.pop(0)
        if not line.startswith(answer):
            raise Violation(line)
        return line

    def mark(self):
        found = re.fullmatch(r"mark gap_ms=([\d.]+) acknowledged=(\d+)", self.ask("mark", "mark"))
        return float(found[1]), int(found[2])

    def check(self):
        return int(re.search(r"endpoints=(\d+)", self.ask("check", "checked"))[1])

    def stop(self):
        self.ask("stop", "checked")
        return self.process.wait(timeout=30)

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=30)


def wait_for_writes(writers, clients, limit=60):
    """Until all writers can have gone on; the longest time without any acknowledgement."""
    longest, acknowledged, end = 0.0, 0, time.monotonic() + limit
    while time.monotonic() < end:
        time.sleep(0.05)
        gap, count = writers.mark()
        longest = max(longest, gap)
        acknowledged += count
        if acknowledged >= 4 * clients:
            return longest, acknowledged
    raise Violation(f"hardly a write in {limit} s although two of three servers run")


def state_of(options, server):
    """What the server itself holds, without asking the others."""
    done = subprocess.run([options.conclave, "kv", "get", "crash/", "--prefix", "--serializable", "-o", "json",
                           "--endpoints", server.endpoint], capture_output=True, text=True, timeout=30, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else None


def wait_for_same_state(options, servers):
    def same():
        states = [state_of(options, server) for server in servers]
        return all(states) and all(state == states[0] for state in states)

    cluster.wait_until("all servers hold the same", same, 60)


def run(options):
    rng = random.Random(options.seed)
    gaps = {"leader": [], "follower": []}
    total = 0
    with cluster.make(options, 3) as servers:
        writers = Writers(options.writers, servers.endpoints, options.clients)
        try:
            time.sleep(0.3)
            for number in range(1, options.kills + 1):
                leader = servers.leader()
                kill_leader = number % 2 == 1
                victim = leader if kill_leader else rng.choice([s for s in servers.servers if s is not leader])
                total += writers.mark()[1]
                victim.kill()
                # Answers that were on their way are none of the new leader's; the gap may be over already.
                at_once, acknowledged = writers.mark()
                total += acknowledged
                gap, acknowledged = wait_for_writes(writers, options.clients)
                gap = max(gap, at_once)
                total += acknowledged
                answered = writers.check()
                if answered == 0:
                    raise Violation("nobody answered a read")
                # Long enough, now and then, that it comes back far behind.
                time.sleep(rng.choice([0.0, 0.1, 0.3, 1.0]))
                victim.start()
                cluster.wait_until(f"{victim.name} is healthy", victim.healthy, 60)
                back, acknowledged = writers.mark()
                total += acknowledged
                gaps["leader" if kill_leader else "follower"].append(gap)
                print(f"kill {number:3}: {victim.name} ({'leader' if kill_leader else 'follower'})  gap {gap:7.1f} ms  "
                      f"while it came back {back:7.1f} ms", flush=True)
                if writers.check() < 2:
                    raise Violation("fewer than two servers answer a read")
            total += writers.mark()[1]
            if writers.stop() != 0:
                raise Violation("the writers failed")
            servers.wait_healthy()
            wait_for_same_state(options, servers.servers)
        except (Violation, cluster.Timeout) as problem:
            print(f"FAILED after seed {options.seed}: {problem}", flush=True)
            for server in servers.servers:
                print(f"-- the end of {server.name}'s log:\n{server.last_words()}", flush=True)
            return 1
        finally:
            writers.end()
    for role, values in gaps.items():
        if values:
            print(f"{role} killed {len(values)} times: writes stood still for {statistics.median(values):.0f} ms (median), "
                  f"{max(values):.0f} ms (maximum)")
    print(f"{options.system}: {options.kills} kills, {total} writes acknowledged between them, none lost, none went back "
          f"(seed {options.seed})")
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cluster.add_arguments(parser)
    root = pathlib.Path(__file__).resolve().parents[2]
    parser.add_argument("--writers", default=str(root / "build/release/crash_writers"), help="the writers' binary")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=16)
    sys.exit(run(parser.parse_args()))


if __name__ == "__main__":
    main()
