#!/usr/bin/python3
"""Attacks on a real server, one kind after the other, each on a server of its own.

hostile.py [--conclave BINARY] --attacker BINARY [--rounds 9 --seconds 3] [--kinds a,b]

Without --rounds, one attack of each kind: the server stays up and serves, refuses where it is to refuse, and its memory
grows by no more than 64 MiB beyond what is configured. With --rounds also what the attack costs a client who does nothing
wrong, as a ratio to a quiet side on which the same attacker burns the same CPU time against a process that takes whatever
comes; alternating rounds, medians of their ratios. These are printed, never asserted. Exit code 1: one of the first kind.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "interop"))
import cluster  # noqa: E402

GROWTH_MAX_MIB = 64
FILL_MIB = 48
HISTORY_MIB = 16
# For what had been sent before a server ends the connection, and for the processes to start.
LEAD_SECONDS = 0.5


class Kind:
    def __init__(self, name, bound_mib=0, refused="ended_by_server", seconds=2.5, tls=False, fill=False, statuses=None):
        self.name = name
        self.bound_mib = bound_mib  # what the limits of net, api and keyspace let it hold for this attack
        self.refused = refused      # what the attacker counts when it is; None: the server need not say anything
        self.seconds = seconds
        self.tls = tls
        self.fill = fill
        self.statuses = statuses    # of gRPC: each answer has one of them, and each of them is answered


KINDS = [
    Kind("rapid_reset"),
    Kind("continuation"),
    Kind("settings"),
    Kind("ping"),
    Kind("window_update"),
    Kind("unknown_frames"),
    # Ten seconds is what a server gives for the headers of one request.
    Kind("slow_headers", seconds=13),
    # A thousand at a time, each with OpenSSL's buffers for one record each way and one message.
    Kind("handshakes", bound_mib=64, tls=True),
    # By a status each, RESOURCE_EXHAUSTED.
    Kind("lengths", refused="received", statuses={"8"}),
    # Eight connections, each with 64 MiB of answers that wait and one more; what is being put together has a limit for
    # all.
    Kind("ranges", bound_mib=8 * (64 + FILL_MIB) + 1536, refused=None, fill=True),
    # As deep as they may be, and malformed.
    Kind("transactions", refused="received", statuses={"0", "3"}),
    # 200 streams of 256 KiB, and the history they have not seen.
    Kind("watchers", bound_mib=200 // 4 + HISTORY_MIB, refused=None),
]


class Failure(Exception):
    pass


def resident_mib(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise Failure("the server has ended")


class Memory:
    """The most that a process holds from here on."""

    def __init__(self, pid):
        self.pid = pid
        self.before = self.most = resident_mib(pid)
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self):
        while not self.over.wait(0.05):
            try:
                self.most = max(self.most, resident_mib(self.pid))
            except (OSError, Failure):
                return

    def end(self):
        self.over.set()
        self.thread.join()
        return self.most - self.before


class Arena:
    """One server, and the sink beside it."""

    def __init__(self, options, kind):
        self.options = options
        self.kind = kind
        self.cluster = cluster.Cluster("conclave", 1, options.conclave, tls=kind.tls)
        self.sink = None

    def __enter__(self):
        command = self.cluster.command
        self.cluster.command = lambda server: [*command(server), "--history-mib", str(HISTORY_MIB)]
        try:
            self.cluster.start()
            self.sink = subprocess.Popen([self.options.attacker, "sink"], stdout=subprocess.PIPE, text=True,
                                         preexec_fn=cluster.end_with_parent)
            self.sink_port = int(self.sink.stdout.readline())
            if self.kind.fill:
                subprocess.run([self.options.attacker, "fill", str(self.port), str(FILL_MIB)], check=True, timeout=120)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self.sink is not None:
            self.sink.kill()
            self.sink.wait(timeout=10)
            self.sink.stdout.close()
        # Killed and not asked to end: it may be finishing answers that nobody reads.
        for server in self.cluster.servers:
            if server.running():
                server.kill()
        self.cluster.close()

    @property
    def server(self):
        return self.cluster.servers[0]

    @property
    def port(self):
        return self.server.client_port

    def attack(self, port, seconds, burn=0.0):
        """What the attacker did, using `burn` seconds of CPU at least, and how the client of the server fared meanwhile."""
        attacker = subprocess.Popen([self.options.attacker, "attack", self.kind.name, str(port), str(seconds + LEAD_SECONDS),
                                     "--burn", str(burn)],
                                    stdout=subprocess.PIPE, text=True, preexec_fn=cluster.end_with_parent)
        try:
            time.sleep(LEAD_SECONDS)  # to be in the middle of it; nothing depends on how long it takes
            client = subprocess.run([self.options.attacker, "probe", str(self.port), str(seconds - 0.2),
                                     *self.cluster.client_arguments()], capture_output=True, text=True, check=False,
                                    timeout=seconds + 60)
            done, _ = attacker.communicate(timeout=seconds + 60)
        except subprocess.TimeoutExpired as error:
            raise Failure(f"{self.kind.name}: {error}") from error
        finally:
            attacker.kill()
            attacker.wait(timeout=10)
        if not self.server.running():
            raise Failure(f"{self.kind.name}: the server ended: {self.server.last_words()}")
        if client.returncode != 0:
            raise Failure(f"{self.kind.name}: the client is not served: {client.stderr}")
        if attacker.returncode != 0:
            raise Failure(f"{self.kind.name}: the attacker ended with {attacker.returncode}")
        return json.loads(done), json.loads(client.stdout)


def once(options, kind):
    with Arena(options, kind) as arena:
        memory = Memory(arena.server.pid)
        done, client = arena.attack(arena.port, kind.seconds)
        growth = memory.end()
        cluster.wait_until(f"{kind.name}: healthy again", arena.server.healthy, limit=20)
    print(f"{kind.name:16} connections {done['connects']:6}, ended {done['ended_by_server']:6}; sent {done['sent'] / 2**20:7.1f} MiB;"
          f" memory +{growth:6.1f} MiB of {kind.bound_mib} + {GROWTH_MAX_MIB}; p50 {client['p50_us']:7.0f} us,"
          f" p99 {client['p99_us']:7.0f} us, refused {client['refused']}, a connection in"
          f" {client['connect_us'] / 1000:.1f} ms", flush=True)
    if kind.refused is not None and done[kind.refused] == 0:
        raise Failure(f"{kind.name}: nothing was refused")
    if kind.statuses is not None and set(done["statuses"]) != kind.statuses:
        raise Failure(f"{kind.name}: answered by {done['statuses']}, not by {sorted(kind.statuses)}")
    if growth > kind.bound_mib + GROWTH_MAX_MIB and not options.sanitized:
        raise Failure(f"{kind.name}: memory grew by {growth:.0f} MiB")
    return growth


def measure(options, kind):
    rounds = []
    with Arena(options, kind) as arena:
        arena.attack(arena.sink_port, 0.5)  # warm
        memory = Memory(arena.server.pid)
        for number in range(options.rounds):
            sides = {}
            for side in ("hostile", "quiet") if number % 2 == 0 else ("quiet", "hostile"):
                if side == "hostile":
                    sides[side] = arena.attack(arena.port, options.seconds)
                    # What answers and broken connections cost the attacker, the sink must cost it too.
                    burn = sides[side][0]["cpu_s"]
                else:
                    sides[side] = arena.attack(arena.sink_port, options.seconds, burn)
            rounds.append(sides)
        growth = memory.end()

    def ratio(of):
        return statistics.median(of(sides["hostile"]) / of(sides["quiet"]) for sides in rounds)

    def median(side, of):
        return statistics.median(of(sides[side]) for sides in rounds)

    result = {"kind": kind.name, "growth_mib": round(growth, 1), "bound_mib": kind.bound_mib,
              "p50_us": median("hostile", lambda one: one[1]["p50_us"]),
              "p99_us": median("hostile", lambda one: one[1]["p99_us"]),
              "connect_us": median("hostile", lambda one: one[1]["connect_us"]),
              "p50_ratio": round(ratio(lambda one: one[1]["p50_us"]), 2),
              "p99_ratio": round(ratio(lambda one: one[1]["p99_us"]), 2),
              "attacker_cpu_ratio": round(ratio(lambda one: one[0]["cpu_s"]), 2)}
    print(f"{kind.name:16} memory +{growth:6.1f} of {kind.bound_mib} + {GROWTH_MAX_MIB} MiB; p50 {result['p50_us']:6.0f} us,"
          f" x {result['p50_ratio']:.2f}; p99 {result['p99_us']:6.0f} us, x {result['p99_ratio']:.2f};"
          f" a connection in {result['connect_us'] / 1000:.1f} ms; attacker's CPU x {result['attacker_cpu_ratio']:.2f}",
          flush=True)
    if growth > kind.bound_mib + GROWTH_MAX_MIB:
        raise Failure(f"{kind.name}: memory grew by {growth:.0f} MiB")
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = pathlib.Path(__file__).resolve().parents[2]
    parser.add_argument("--conclave", default=str(root / "build/release/conclave"), help="the conclave binary")
    parser.add_argument("--attacker", default=str(root / "build/release/hostile"), help="the binary of hostile.cc")
    parser.add_argument("--rounds", type=int, default=0, help="of both sides, alternating")
    parser.add_argument("--seconds", type=float, default=3, help="of one side of one round")
    parser.add_argument("--kinds", default="", help="some only")
    parser.add_argument("--sanitized", action="store_true",
                        help="without --rounds, memory is told and not judged: a sanitizer keeps what was freed")
    parser.add_argument("--json", action="store_true", help="with --rounds, one line of JSON at the end")
    options = parser.parse_args()
    wanted = options.kinds.split(",") if options.kinds else [kind.name for kind in KINDS]
    failures = []
    results = []
    begin = time.monotonic()
    for kind in KINDS:
        if kind.name not in wanted:
            continue
        try:
            if options.rounds > 0:
                results.append(measure(options, kind))
            else:
                once(options, kind)
        except (Failure, cluster.Timeout, subprocess.SubprocessError) as failure:
            print(f"FAILED {failure}", flush=True)
            failures.append(kind.name)
    print(f"hostile: {len(wanted)} kinds in {time.monotonic() - begin:.0f} s, {len(failures)} failed")
    if options.json and options.rounds > 0:
        print(json.dumps(results))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
