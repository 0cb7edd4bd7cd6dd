#!/usr/bin/python3
"""A worker of the fleet that is no program of ours: etcd's lock service as JSON, `etcdctl lock` or `etcdctl elect`. Takes
the lock, or is elected, asks the resource to let it in, works, leaves; again and again. Started by fleet_test.py.

worker.py rpc|lock|elect ENDPOINTS NAME RESOURCE ID
worker.py inside ENDPOINTS NAME RESOURCE ID      what `etcdctl lock` runs while it holds
"""
import base64
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

TTL = 5
WRITES = 4
PAUSE = 0.015
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # ends with whoever started it


class Resource:
    def __init__(self, where, name):
        host, port = where.rsplit(":", 1)
        self.lines = socket.create_connection((host, int(port)), timeout=120).makefile("rw")
        self.name = name

    def ask(self, what, token):
        self.lines.write(f"{what} {token} {self.name}\n")
        self.lines.flush()
        return self.lines.readline().strip() == "ok"

    def work(self, token, lost=lambda: False):
        if not self.ask("enter", token):
            return
        for _ in range(WRITES):
            time.sleep(PAUSE)
            if lost():
                self.ask("leave", token)
                return
            if not self.ask("write", token):
                return
        self.ask("exit", token)


class Api:
    """etcd's API as JSON, at whichever server answers."""

    def __init__(self, endpoints):
        self.endpoints = endpoints.split(",")

    def post(self, path, body, limit=5.0):
        for _ in range(len(self.endpoints)):
            request = urllib.request.Request(f"http://{self.endpoints[0]}{path}", json.dumps(body).encode(),
                                             {"Content-Type": "application/json"})
            try:
                with urllib.request.urlopen(request, timeout=limit) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError:
                raise
            except OSError:
                self.endpoints.append(self.endpoints.pop(0))
        raise OSError("no server answers")

    def created(self, key):
        """The create revision of a key, base64; 0: there is none."""
        answer = self.post("/v3/kv/range", {"key": key})
        return int(answer["kvs"][0]["create_revision"]) if answer.get("kvs") else 0


def encoded(text):
    return base64.b64encode(text.encode()).decode()


def rpc_once(api, name, resource):
    lease = api.post("/v3/lease/grant", {"TTL": TTL})["ID"]
    ended = threading.Event()
    lost = threading.Event()

    def keep():
        while not ended.wait(TTL / 4):
            try:
                answer = api.post("/v3/lease/keepalive", {"ID": lease}, TTL / 4)
                if int(answer["result"].get("TTL", 0)) <= 0:
                    lost.set()
                    return
            except (OSError, ValueError, KeyError):
                pass
    keeper = threading.Thread(target=keep, daemon=True)
    keeper.start()
    try:
        while not lost.is_set():
            key = api.post("/v3/lock/lock", {"name": encoded(name), "lease": lease}, 60)["key"]
            token = api.created(key)
            if token:
                resource.work(token, lost.is_set)
            api.post("/v3/lock/unlock", {"key": key})
            time.sleep(PAUSE)
    finally:
        ended.set()


def etcdctl(endpoints, *arguments, **options):
    return subprocess.Popen(["etcdctl", f"--endpoints={endpoints}", *arguments], stderr=subprocess.DEVNULL,
                            env={**os.environ, "ETCDCTL_API": "3"}, **options)


def elect_once(api, endpoints, name, resource):
    process = etcdctl(endpoints, "elect", name, resource.name, stdout=subprocess.PIPE, text=True)
    try:
        key = process.stdout.readline().strip()
        if key:
            token = api.created(encoded(key))
            if token:
                resource.work(token, lambda: process.poll() is not None)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
        process.stdout.close()


def main():
    kind, endpoints, name, where, me = sys.argv[1:]
    api = Api(endpoints)
    if kind == "inside":
        token = api.created(encoded(os.environ["ETCD_LOCK_KEY"]))
        if token:
            Resource(where, me).work(token)
        return
    resource = Resource(where, me)
    while True:
        try:
            if kind == "rpc":
                rpc_once(api, name, resource)
            elif kind == "elect":
                elect_once(api, endpoints, name, resource)
            else:
                etcdctl(endpoints, "lock", f"--ttl={TTL}", name, sys.executable, __file__, "inside", endpoints, name, where,
                        me, stdout=subprocess.DEVNULL).wait()
        except (OSError, ValueError, KeyError, subprocess.SubprocessError):
            time.sleep(0.2)
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()
