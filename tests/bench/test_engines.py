"""Engines: a worker that is killed costs its job alone on this machine, and nothing on a Ray cluster."""

import os
import signal
import sys
import time
from dataclasses import replace

import pytest

from everlearn.bench import engines
from everlearn.bench.cells import DONE, FAILED, PAUSED, Job, work
from everlearn.errors import ConfigError
from support.recipes import lines_of, plain_recipe


def job(folder, name, seed=0, **changes):
    content = plain_recipe([], seeds=[seed], checkpoint={"every_steps": 1})
    return Job(name, content, str(folder / name), str(folder / f"{name}.log"), os.getcwd(), 1, **changes)


def test_a_job_in_this_process(tmp_path):
    assert work(job(tmp_path, "a")).state == DONE
    assert work(job(tmp_path, "b", deadline=time.time() - 1)).state == PAUSED
    broken = work(Job("c", {"stream": {"name": "digits"}, "model": {"name": "mlp", "options": {"hidden": ["x"]}}},
                      str(tmp_path / "c"), str(tmp_path / "c.log"), os.getcwd(), 1))  # fmt: skip
    assert broken.state == FAILED
    assert broken.error


def test_a_killed_process_fails_its_job_and_is_replaced(tmp_path):
    jobs = [job(tmp_path, name) for name in ("a", "b")]
    jobs[0].content["learner"]["epochs"] = 100_000
    with engines.processes(1, 1) as engine:
        outcomes = engine(jobs)
        started = engines._start

        def start_and_kill(threads):
            worker = started(threads)
            if not (tmp_path / "a").exists():
                os.kill(worker.process.pid, signal.SIGKILL)
            else:
                raise AssertionError("started once too often")
            engines._start = started
            return worker

        engines._start = start_and_kill
        try:
            found = list(outcomes)
        finally:
            engines._start = started
    assert [(one.name, one.state) for one in found] == [("a", FAILED), ("b", DONE)]
    assert "its process was killed (signal 9)" in found[0].error


def test_ray_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'everlearn\[ray\]'"), engines.ray_cluster(1, None, 1):
        pass


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_ray_worker_that_is_killed_loses_nothing(tmp_path, monkeypatch):
    """The same files and numbers as in this process, though the worker that was at it is killed."""
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    marker = tmp_path / "killed"
    stream = {"name": "support.grids:KillsOnce", "marker": str(marker), "per_task": 16, "per_task_eval": 8}
    jobs = [job(tmp_path, "one"), job(tmp_path, "other", 4)]
    jobs[0].content["stream"] = stream
    with engines.ray_cluster(1, None, 2) as engine:
        found = sorted((one.name, one.state) for one in engine(jobs))
    assert marker.exists()
    assert found == [("one", DONE), ("other", DONE)]
    alone = replace(jobs[0], folder=str(tmp_path / "alone"))
    assert work(alone).state == DONE
    assert lines_of(tmp_path / "one")[1:] == lines_of(tmp_path / "alone")[1:]
