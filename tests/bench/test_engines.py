"""Engines: a worker that is killed costs its job alone on this machine, and nothing on a Ray cluster."""

import os
import signal
import time

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
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'everlearn\[ray\]'"), engines.ray_cluster(1, None, 1):
        pass


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_ray_worker_that_is_killed_loses_nothing(tmp_path):
    """The same cells, files and numbers as in this process, though the worker that was at the first one is killed."""
    ray = pytest.importorskip("ray")
    assert work(job(tmp_path, "alone", 3)).state == DONE
    jobs = [job(tmp_path, "one", 3), job(tmp_path, "other", 4)]
    with engines.ray_cluster(1, None, 2) as engine:
        pid = ray.get(ray.remote(os.getpid).remote())
        outcomes = engine(jobs)
        os.kill(pid, signal.SIGKILL)  # idle by now, or at one of the jobs
        found = sorted((one.name, one.state) for one in outcomes)
    assert found == [("one", DONE), ("other", DONE)]
    assert lines_of(tmp_path / "one")[1:] == lines_of(tmp_path / "alone")[1:]
