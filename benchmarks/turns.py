"""Programs that work in turns, so that what else the machine does meets all of them: each takes a block of steps when
it is told to, and tells how long that took. Only the standard library: peers run it in environments of their own."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Turns:
    """The side of one that works: calls `begin` before its first step, `step` after each, `end` after the last.

    It talks by lines on standard input and output, so nothing else may be printed there.

    Args:
        n_steps: in a block. finish: what a block's time ends with, such as waiting for a GPU.
    """

    def __init__(self, n_steps: int, finish: Callable[[], None] = lambda: None):
        self.n_steps, self.n_done, self.finish = n_steps, 0, finish
        self._started = (0.0, 0.0)

    def begin(self) -> None:
        """Wait for the first turn."""
        self._tell({"ready": True})
        self._wait()

    def step(self) -> None:
        """Count a step. After the last one of a block tell what it took, and wait for the next turn."""
        self.n_done += 1
        if self.n_done % self.n_steps == 0:
            self.finish()
            wall_s, cpu_s = time.perf_counter() - self._started[0], time.process_time() - self._started[1]
            self._tell({"wall_s": wall_s, "cpu_s": cpu_s})
            self._wait()

    def end(self, **facts: Any) -> None:
        """Tell what there is to tell at the end, and the largest memory this process has had, unless that is told."""
        self._tell({"peak_memory_bytes": peak_memory_bytes(), **facts})

    def _tell(self, said: dict[str, Any]) -> None:
        print(json.dumps(said), file=sys.__stdout__, flush=True)

    def _wait(self) -> None:
        sys.stdin.readline()
        self._started = (time.perf_counter(), time.process_time())


class Worker:
    """The side of the one that hands out turns."""

    def __init__(self, command: list[str], environment: dict[str, str]):
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=environment
        )

    def ready(self) -> None:
        """Wait until it is about to take its first step; it gets there meanwhile, beside others."""
        self.heard()

    def turn(self) -> dict[str, Any]:
        """Let it take a block of steps, and return what it says of it."""
        print(file=self.process.stdin, flush=True)
        return self.heard()

    def end(self) -> dict[str, Any]:
        """Let it end, and return its last words."""
        found = self.turn()
        self.process.communicate()
        return found

    def stop(self) -> None:
        """End it, wherever it is."""
        self.process.kill()
        self.process.communicate()

    def heard(self) -> dict[str, Any]:
        """Return the next thing it says.

        Raises:
            RuntimeError: if it ended before.
        """
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self.process.args)} ended with code {self.process.wait()}")
        return json.loads(line)


def peak_memory_bytes() -> int:
    """Return the largest resident memory that this process has had (Linux; rusage would count its parent's too)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
