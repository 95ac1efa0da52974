import sys
import textwrap

import pytest
import turns

WORKER = """
    import time
    from turns import Turns

    work = Turns(2)
    work.begin()
    for _ in range(4):
        time.sleep(0.01)
        work.step()
    work.end(losses=[1.0, 2.0])
"""


@pytest.fixture
def worker(tmp_path):
    def start(program):
        path = tmp_path / "worker.py"
        path.write_text(textwrap.dedent(program))
        return turns.Worker([sys.executable, str(path)], {"PYTHONPATH": str(turns.__file__).rpartition("/")[0]})

    return start


def test_a_worker_takes_a_block_of_steps_at_each_turn(worker):
    started = worker(WORKER)
    started.ready()
    blocks = [started.turn() for _ in range(2)]
    assert all(block["wall_s"] >= 0.02 for block in blocks)
    assert all(block["cpu_s"] < block["wall_s"] for block in blocks)
    end = started.end()
    assert end["losses"] == [1.0, 2.0]
    assert end["peak_memory_bytes"] > 2**20


def test_a_worker_that_fails_is_told(worker):
    started = worker("raise SystemExit(3)")
    with pytest.raises(RuntimeError, match="ended with code 3"):
        started.ready()
    started.process.communicate()


def test_memory_is_the_largest_there_was():
    before = turns.peak_memory_bytes()
    block = bytearray(64 * 2**20)
    block[:: 2**12] = b"\1" * len(block[:: 2**12])
    del block
    assert turns.peak_memory_bytes() > before + 32 * 2**20 or before > 64 * 2**20
