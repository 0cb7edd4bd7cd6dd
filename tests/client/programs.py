"""Programs that a test drives: what they print is waited for, with a limit; each is ended by its own process."""
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "interop"))
import cluster  # noqa: E402

LIMIT = 60


class Program:
    def __init__(self, test, *command, limit=LIMIT):
        self.name = pathlib.Path(str(command[0])).name
        self.limit = limit
        self.lines = []
        self._more = threading.Condition()
        self.process = subprocess.Popen([str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True, preexec_fn=cluster.end_with_parent)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        test.addCleanup(self.close)

    def _read(self):
        for line in self.process.stdout:
            with self._more:
                self.lines.append(line.rstrip("\n"))
                self._more.notify_all()

    def wait_line(self, start, count=1):
        """The `count`th line that begins so."""
        end = time.monotonic() + self.limit
        with self._more:
            while True:
                found = [line for line in self.lines if line.startswith(start)]
                if len(found) >= count:
                    return found[count - 1]
                left = end - time.monotonic()
                if left <= 0:
                    raise cluster.Timeout(f"{self.name} printed no '{start}' ({count}): {self.lines[-20:]}")
                self._more.wait(left)

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def signal(self, number):
        os.kill(self.process.pid, number)

    def end(self):
        """Its exit code, when it has ended by itself."""
        code = self.process.wait(timeout=self.limit)
        self._reader.join(self.limit)
        return code

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(timeout=30)
        self._reader.join(30)
        self.process.stdin.close()
        self.process.stdout.close()
