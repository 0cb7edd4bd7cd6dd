"""Client programs in other languages against clusters of real servers.

A program is called [--cacert F --cert F --key F] [--without CHECK,CHECK ...] ENDPOINTS [CHECK ...] and prints a line for each
check: "ok NAME ..." or "FAIL NAME: why". A line "kill leader" or "bring back" is an order, answered by one "done" on its
standard input. It ends with 0 where nothing failed.
"""
import argparse
import subprocess
import sys
import threading

import cluster

LIMIT = 420


class Driver:
    """One program on one cluster: does what it orders until it ends. What it left dead after a failure is started again."""

    def __init__(self, servers, about):
        self.servers = servers
        self.about = about
        self.dead = []

    def bring_back(self):
        for server in self.dead:
            server.start()
        self.dead.clear()
        self.servers.wait_healthy()

    def obey(self, line):
        """Whether it was an order."""
        if line == "kill leader":
            leader = self.servers.leader()
            leader.kill()
            self.dead.append(leader)
        elif line == "bring back":
            self.bring_back()
        else:
            return False
        return True

    def run(self, command, environment):
        process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                   bufsize=1, preexec_fn=cluster.end_with_parent)
        timer = threading.Timer(LIMIT, process.kill)
        timer.start()
        try:
            for line in process.stdout:
                line = line.rstrip("\n")
                if self.obey(line):
                    process.stdin.write("done\n")
                    process.stdin.flush()
                    continue
                print(f"{self.about}: {line}", flush=True)
                if line.startswith("FAIL") and self.dead:
                    self.bring_back()
            return process.wait(timeout=30)
        finally:
            timer.cancel()
            if process.poll() is None:
                process.kill()
                process.wait(timeout=30)
            process.stdin.close()
            process.stdout.close()


def parser(description):
    made = argparse.ArgumentParser(description=description)
    cluster.add_arguments(made)
    made.add_argument("--nodes", default="1,3", help="sizes of the clusters")
    made.add_argument("--tls", action="store_true", help="certificates for servers and the client")
    made.add_argument("--without", action="append", default=[], metavar="CHECK", help="a check to leave out")
    made.add_argument("checks", nargs="*")
    return made


def run(options, command, environment=None):
    """Ends this process: 0 where no check failed on any cluster."""
    codes = []
    for nodes in (int(text) for text in options.nodes.split(",")):
        with cluster.make(options, nodes, tls=options.tls) as servers:
            driver = Driver(servers, f"{options.system}, {nodes} servers{' with TLS' if options.tls else ''}")
            without = ["--without", ",".join(options.without)] if options.without else []
            codes.append(driver.run([*command, *servers.client_arguments(), *without, servers.endpoints, *options.checks],
                                    environment))
    sys.exit(1 if any(codes) else 0)
