"""Where jobs are done: processes of this machine, each with its share of the threads, or the machines of a Ray cluster.

Both do the same jobs with the same code and threads, so that files and numbers are the same.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any

from everlearn.bench.cells import FAILED, Job, Outcome, work
from everlearn.errors import ConfigError, describe

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
PAUSE_S = 120.0  # that workers have to save what they are at, when asked to stop
KILLED = "its process was killed (signal {}); if by the system, for want of memory: fewer --jobs, or a smaller cell"


@dataclass
class _Worker:
    """A process that does one job after another. job: what it is at."""

    process: BaseProcess
    link: connection.Connection
    job: Job | None = None


Engine = Callable[[Sequence[Job]], Iterator[Outcome]]  # yields what comes of each job, as it comes


@contextmanager
def processes(n_workers: int, threads: int) -> Iterator[Engine]:
    """Give an engine of so many processes of this machine; one that dies is replaced, and its job has failed.

    At the end those at work are asked to pause, and given a while.
    """
    workers: list[_Worker] = []
    try:
        yield lambda jobs: _share_out(jobs, workers, n_workers, threads)
    finally:
        _stop(workers)


@contextmanager
def ray_cluster(threads: int, address: str | None, n_cpus: int) -> Iterator[Engine]:
    """Give an engine of a Ray cluster's machines; a job whose worker died goes on from its checkpoint, on any of them.

    The machines must see the folder that results go to, under the same path.

    Args:
        address: of the cluster, such as host:6379; None: one that is started here, for this alone.
        n_cpus: of the one that is started here.

    Raises:
        ConfigError: if Ray isn't installed or there is no cluster.
    """
    ray = _connect(address, n_cpus)
    remote = ray.remote(num_cpus=threads, max_retries=3)(work)

    def share_out(jobs: Sequence[Job]) -> Iterator[Outcome]:
        waiting = {remote.remote(job): job for job in jobs}
        while waiting:
            (ready,), _ = ray.wait(list(waiting), num_returns=1)
            job = waiting.pop(ready)
            try:
                yield ray.get(ready)
            except ray.exceptions.RayError as error:  # its worker died once too often, or its machine is gone
                yield Outcome(job.name, FAILED, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")

    try:
        yield share_out
    finally:
        ray.shutdown()


def _share_out(jobs: Sequence[Job], workers: list[_Worker], n_workers: int, threads: int) -> Iterator[Outcome]:
    waiting = list(reversed(jobs))
    while waiting or any(worker.job for worker in workers):
        while len(workers) < min(n_workers, len(waiting) + sum(worker.job is not None for worker in workers)):
            workers.append(_start(threads))
        for worker in workers:
            if worker.job is None and waiting:
                worker.job = waiting.pop()
                worker.link.send(worker.job)
        ready = connection.wait([w.link for w in workers] + [w.process.sentinel for w in workers])
        for worker in [w for w in workers if w.link in ready or w.process.sentinel in ready]:
            outcome, ended = _hear(worker)
            if ended:
                workers.remove(worker)
            if outcome is not None:
                worker.job = None
                yield outcome


def _connect(address: str | None, n_cpus: int) -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what Ray is about to do, it does already
    try:
        import ray
    except ImportError as error:
        way_out = "Install it: pip install 'everlearn[ray]'; or leave --engine out"
        raise ConfigError(describe("--engine ray", f"isn't installed ({error})", "ray", way_out)) from error
    local = {} if address else {"num_cpus": n_cpus, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **local)
    except (ConnectionError, RuntimeError, ValueError) as error:
        told = " ".join(str(error).split())[:200]
        way_out = "Start one with: ray start --head; or leave --ray-address out"
        raise ConfigError(describe("--ray-address", f"there is no cluster ({told})", address, way_out)) from error
    return ray


def _start(threads: int) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), name="everlearn-bench")
    with _threads_of_children(threads):
        process.start()
    theirs.close()
    return _Worker(process, ours)


@contextmanager
def _threads_of_children(threads: int) -> Iterator[None]:
    """Have numerical libraries of processes that are started meanwhile use so many threads."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(link: connection.Connection) -> None:
    """Do what comes through the link, until it is closed. A worker never outlives who started it."""
    os.setpgrp()  # Ctrl-C reaches the one who started it, which asks once
    Thread(target=_end_with_parent, daemon=True).start()
    try:
        while True:
            link.send(work(link.recv()))
    except (EOFError, KeyboardInterrupt):
        return


def _end_with_parent() -> None:
    connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _hear(worker: _Worker) -> tuple[Outcome | None, bool]:
    """Return what came of a worker's job, if it had one, and whether the worker is gone."""
    try:
        if worker.link.poll():
            return worker.link.recv(), False
    except (EOFError, ConnectionResetError):
        pass
    worker.process.join(PAUSE_S)
    worker.link.close()
    if worker.job is None:
        return None, True
    code = worker.process.exitcode or 0
    error = KILLED.format(-code) if code < 0 else f"its process ended with exit code {code}"
    return Outcome(worker.job.name, FAILED, error), True


def _stop(workers: Sequence[_Worker]) -> None:
    """Ask those at work to pause, let the others go, and wait; who doesn't end in time is killed: runs bear that."""
    for worker in workers:
        if worker.job is not None and worker.process.is_alive():
            os.kill(worker.process.pid, signal.SIGINT)
    until = time.monotonic() + PAUSE_S
    for worker in workers:
        if worker.job is not None:
            worker.link.poll(max(0.0, until - time.monotonic()))
        worker.link.close()
        worker.process.join(max(1.0, until - time.monotonic()) if worker.job is None else 5.0)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
