"""Run as a program: teaches copies of a home in forked children, kills them, goes on, and prints what came of it.

Forked, because each child would else spend seconds on imports. Arguments: home, training rows, evaluation rows, folder
to work in. Prints a JSON line for each case, with the end.
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
from support.home import end_of

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


def child(work: Callable[[Path], None], path: Path) -> int:
    """Fork a child that does `work`. Returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        sys.stderr.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        work(path)
        status = 0
    finally:
        os._exit(status)


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
    assert os.waitpid(child(learn, whole), 0)[1] == 0
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


if __name__ == "__main__":
    try:
        main()
    except StateError as error:
        sys.exit(str(error))
