"""Run as a program: teaches copies of a home in forked children, kills them, goes on, and prints what came of it.

Forked, because each child would else spend seconds on imports. Arguments: home, training rows, evaluation rows, folder
to work in. Prints a JSON line for each case: how it was killed, which version was current then, and the end.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from everlearn.errors import StateError
from everlearn.home import Gate, Home
from everlearn.home.files import sha256_of
from everlearn.home.store import files_in

OPTIONS = {"learner": {"epochs": 2, "batch_size": 4}, "gate": Gate(1.0)}


def learn(path: Path) -> None:
    """Teach the third task, saving every second step."""
    from everlearn.config import CheckpointConfig

    checkpoint = CheckpointConfig(every_s=None, every_steps=2)
    Home.open(path).learn("third", sys.argv[2], sys.argv[3], checkpoint=checkpoint, **OPTIONS)


def go_on(path: Path) -> None:
    """Resume, or begin anew where the kill came before anything was laid down."""
    home = Home.open(path)
    if 3 not in [record.number for record in home.versions()]:
        if (path / "pending").exists():
            home.resume()
        else:
            learn(path)


def child(work: Callable[[Path], None], path: Path, *, exit_at_fsync: int | None = None) -> int:
    """Fork a child that does `work`; with `exit_at_fsync` it vanishes in place of that fsync. Returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        sys.stderr.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        if exit_at_fsync is not None:
            vanish_at_fsync(exit_at_fsync)
        work(path)
        status = 0
    finally:
        os._exit(status)


def learn_and_count(path: Path) -> None:
    """Learn, and write down how many fsyncs that takes."""
    real, seen = os.fsync, []

    def fsync(handle: int) -> None:
        seen.append(handle)
        real(handle)

    os.fsync = fsync
    learn(path)
    path.with_suffix(".count").write_text(str(len(seen)))


def vanish_at_fsync(n: int) -> None:
    """Let the process end without a trace at its n-th fsync: each is a moment when files are half way."""
    real, seen = os.fsync, [0]

    def fsync(handle: int) -> None:
        seen[0] += 1
        if seen[0] == n:
            os._exit(9)
        real(handle)

    os.fsync = fsync


def end_of(path: Path) -> dict:
    """Return what must be the same however often the learning was killed."""
    home = Home.open(path)
    return {
        "weights": sha256_of(path / "versions" / "000003" / "state" / "tensors.safetensors"),
        "scores": {name: sha for name, sha in files_in(path / "versions" / "000003" / "scores").items()},
        "current": home.current,
        "events": [(event["event"], event["version"]) for event in home.log()],
        "items": {name: sha for name, sha in files_in(path / "tasks").items()},
        "pending": (path / "pending").exists(),
        "leftovers": [str(found) for found in path.rglob(".*.tmp")],
        "problems": [problem for number in range(4) for problem in home._store.problems(number)],
    }


def after_kill(path: Path) -> int:
    """Open the home as the kill left it and return the current version; its weights must load."""
    home = Home.open(path)
    home._store.state(home.current)
    return home.current


def main() -> None:
    """Go through all cases."""
    torch.set_num_threads(1)
    source, work = Path(sys.argv[1]), Path(sys.argv[4])
    whole = shutil.copytree(source, work / "whole")
    started = time.perf_counter()
    assert os.waitpid(child(learn_and_count, whole), 0)[1] == 0
    took_s = time.perf_counter() - started
    print(json.dumps({"case": "whole", "end": end_of(whole)}), flush=True)
    moments = random.Random(5)
    path = shutil.copytree(source, work / "random")
    for _ in range(3):
        pid = child(go_on, path)
        time.sleep(moments.uniform(0.1, 0.9) * took_s)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        after_kill(path)
    assert os.waitpid(child(go_on, path), 0)[1] == 0
    print(json.dumps({"case": "random", "end": end_of(path)}), flush=True)
    total = int(whole.with_suffix(".count").read_text())
    for n in (2, total // 3, *range(total - 9, total + 1, 3)):  # the last ones publish the version
        path = shutil.copytree(source, work / f"fsync-{n}")
        killed = os.waitpid(child(learn, path, exit_at_fsync=n), 0)[1] != 0
        current = after_kill(path)
        assert os.waitpid(child(go_on, path), 0)[1] == 0
        case = {"case": f"fsync {n}", "killed": killed, "current": current, "end": end_of(path)}
        print(json.dumps(case), flush=True)
        shutil.rmtree(path)


if __name__ == "__main__":
    try:
        main()
    except StateError as error:
        sys.exit(str(error))
