"""A library in a process that is killed at random moments: it opens with the state before a change, or after it."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import time

import pytest

from everlearn.experts import Library
from everlearn.files import read_sealed
from everlearn.state import is_leftover
from support.experts import change, keep_changing, state_of

N_KILLS = 8
PATIENCE_S = 60


@pytest.fixture(scope="module")
def server():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["everlearn.experts"])
    return context


def check_sound(library: Library) -> None:
    """Check every byte, and that the next change leaves nothing behind that doesn't belong there."""
    for expert in library.records.values():
        assert library.problems(expert.number) == []
    library.log("looked at")
    for expert in library.experts:
        told = read_sealed(library.folder(expert.number) / "expert.json")
        assert {**told, "base": None} == json.loads(json.dumps({**vars(expert), "base": None}))
    assert not [path for path in library.path.rglob("*") if is_leftover(path)]
    used = {name for e in library.records.values() if e.status != "pruned" for name in (e.folder, *e.earlier)}
    assert used <= {path.name for path in (library.path / "experts").iterdir()}


def test_killed_at_random_moments_it_is_what_it_was_before_or_after(server, still, tmp_path):
    whole = Library.create(tmp_path / "whole", still, rank=32, max_loaded=2)
    states = [state_of(whole)]
    folder, moments = tmp_path / "killed", random.Random(0)
    Library.create(folder, still, rank=32, max_loaded=2)
    step = n_kills = n_between = 0
    while n_kills < N_KILLS or not n_between:
        ours, theirs = server.Pipe(duplex=False)
        child = server.Process(target=keep_changing, args=(folder, step, theirs), daemon=True)
        child.start()
        theirs.close()
        for _ in range(moments.randint(1, 2)):
            assert ours.poll(PATIENCE_S), "the child says nothing"
            step = ours.recv() + 1
        time.sleep(moments.random() * 0.02)
        os.kill(child.pid, signal.SIGKILL)
        child.join(PATIENCE_S)
        while ours.poll():  # what was done before the signal came
            try:
                step = ours.recv() + 1
            except EOFError:
                break
        n_kills += 1
        while len(states) < step + 2:
            change(whole, len(states) - 1)
            states.append(state_of(whole))
        copy = shutil.copytree(folder, tmp_path / f"looked_at_{n_kills}")
        n_between += any(is_leftover(path) for path in copy.rglob("*"))
        found = state_of(Library.open(folder))
        assert found in (states[step], states[step + 1])
        check_sound(Library.open(copy))
        step += found == states[step + 1]
