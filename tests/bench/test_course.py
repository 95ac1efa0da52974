"""The course of an experiment: what is done stays, what failed is named, what is killed or paused goes on."""

import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from everlearn.bench import course
from everlearn.bench.course import Options, bench
from everlearn.errors import ConfigError, StateError
from everlearn.files import locked
from everlearn.runs import is_finished, run
from everlearn.state import read_json
from support.grids import in_this_process, write_grid
from support.recipes import lines_of, plain_recipe


@pytest.fixture
def inline(monkeypatch):
    monkeypatch.setattr(course, "processes", in_this_process)


def test_a_cell_is_a_run_folder_with_the_numbers_of_the_run_alone(done, tmp_path):
    run(plain_recipe(["replay"], seeds=[1]), tmp_path / "alone")
    alone, cell = tmp_path / "alone", done / "out" / "cells" / "replay" / "seed-1"
    assert is_finished(cell)
    assert lines_of(cell)[1:] == lines_of(alone)[1:]
    assert not (cell / "final").exists()  # weights are kept where the grid says so


def test_a_failed_cell_is_named_in_one_line_and_the_rest_goes_on(done):
    failed = read_json(done / "out" / "failed.json")
    assert list(failed) == ["l2p/seed-0", "l2p/seed-1"]
    assert "\n" not in failed["l2p/seed-0"]
    assert "l2p" in failed["l2p/seed-0"]
    told = (done / "told.txt").read_text()
    assert "[8/8]" in told
    assert is_finished(done / "out" / "cells" / "joint" / "seed-1")


def test_what_is_done_stays_and_the_grid_may_grow_but_not_change(tmp_path, inline):
    told = []
    path = write_grid(tmp_path, methods=["none"], seeds=[0])
    bench(path, tmp_path / "out", tell=told.append)
    before = (tmp_path / "out" / "cells" / "none" / "seed-0" / "results.json").stat().st_mtime_ns
    found = bench(write_grid(tmp_path, methods=["none", "ewc"], seeds=[0]), tmp_path / "out", tell=told.append)
    assert told[-2] == "2 cells, 1 done, 1 to run"
    assert not found.left()
    assert (tmp_path / "out" / "cells" / "none" / "seed-0" / "results.json").stat().st_mtime_ns == before
    other = write_grid(tmp_path, methods=["none"], seeds=[0], set=["learner.epochs=1"])
    with pytest.raises(ConfigError, match="holds cell none/seed-0 with another learner"):
        bench(other, tmp_path / "out")


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"model": {"name": "no/such-model"}}, "cell none/seed-0:.*no/such-model"),
        ({"stream": {"name": "files", "paths": ["nowhere.jsonl"]}}, "cell none/seed-0:.*nowhere"),
    ],
)
def test_a_model_or_data_that_cannot_be_read_is_told_before_a_cell_runs(tmp_path, inline, recipe, message):
    base = {"stream": {"name": "arena", "n_train": 4, "n_validation": 0, "n_eval": 4}, "model": {"name": "pocket"}}
    path = write_grid(tmp_path, recipe={**base, **recipe})
    with pytest.raises(ConfigError, match=message):
        bench(path, tmp_path / "out", tell=lambda text: None)
    assert not (tmp_path / "out" / "cells").exists()


def test_one_experiment_at_a_time_in_a_folder(tmp_path, inline):
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out" / "lock", "experiment"), pytest.raises(StateError, match="another process"):
        bench(write_grid(tmp_path), tmp_path / "out")


def test_time_that_is_up_pauses_cells_which_go_on_later(tmp_path, inline):
    path = write_grid(tmp_path, methods=["none"], seeds=[0])
    found = bench(path, tmp_path / "out", Options(hours=1e-9), lambda text: None)
    assert len(found.left()) == 1
    assert not found.failures
    assert not bench(path, tmp_path / "out", tell=lambda text: None).left()


def test_hyperparameters_are_chosen_by_validation_rows_of_the_first_tasks(tmp_path, inline):
    search = {"space": {"learner.learning_rate": [1e-7, 0.01]}, "tasks": 2, "seeds": [9]}
    found = bench(
        write_grid(tmp_path, methods=["none"], seeds=[0], search=search), tmp_path / "out", tell=lambda text: None
    )
    chosen = read_json(tmp_path / "out" / "search" / "chosen.json")["none"]
    assert chosen["chosen"] == {"learner.learning_rate": 0.01}
    assert chosen["scores"][1] > chosen["scores"][0]
    recipe = yaml.safe_load((found.folder(found.cells[0]) / "recipe.yaml").read_text())
    assert recipe["learner"]["learning_rate"] == 0.01
    assert recipe["stream"]["name"] == "digits"
    assert len(list((tmp_path / "out" / "search" / "none").glob("*/seed-9/results.json"))) == 2


def test_killed_with_its_workers_it_goes_on_to_the_same_numbers(tmp_path, done, monkeypatch):
    path = write_grid(tmp_path, methods=["replay"], seeds=[0, 1], set=["checkpoint.every_steps=1"])
    command = [sys.executable, "-m", "everlearn", "bench", str(path), "--out", str(tmp_path / "out")]
    cell = tmp_path / "out" / "cells" / "replay" / "seed-0"
    process = subprocess.Popen(command, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not (cell / "checkpoints").exists() and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (cell / "recipe.yaml").exists()
    monkeypatch.setattr(course, "processes", in_this_process)
    assert not bench(path, tmp_path / "out", tell=lambda text: None).left()
    assert lines_of(cell)[1:] == lines_of(done / "out" / "cells" / "replay" / "seed-0")[1:]
