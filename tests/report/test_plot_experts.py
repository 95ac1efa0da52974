import numpy as np
import pytest
import torch
from tests.report.conftest import stream_lines, write_log

from everlearn.errors import StateError
from everlearn.experts import Library
from everlearn.models.load import ModelConfig, load_model
from everlearn.report.plot_experts import draw_experts, n_experts, places_of
from everlearn.report.plot_router import LOOKS
from everlearn.report.plots import write_plots
from everlearn.report.views import load_views
from everlearn.types import Task
from support.experts import make_lora

TASKS = [f"task {n}" for n in range(5)]
DONE = [("create", None, 0), ("fork", 0, 1), ("reuse", 0, 0), ("compose", None, None), ("create", None, 2)]
BLOCKS = {"text": 4, "gradient": 2, "context": 9}


@pytest.fixture
def run(tmp_path):
    """Return the folder of a run whose five tasks made three experts."""
    lines = stream_lines({0: TASKS}, 0.1, 0.85, 40, {"experts": 1000})
    for line in lines:
        if line["type"] == "cost":
            action, expert, answers = DONE[line["after"]]
            told = {"action": action, "expert": expert, "answers": answers, "task": TASKS[line["after"]], "tau": None}
            line["strategy_facts"] = {"experts": told | {"candidates": [], "reuse_was_right": None, "n_experts": 3}}
    return write_log(tmp_path / "run", lines)


@pytest.fixture
def library(run, llama):
    """Return the run's library: three experts, prototypes of two kinds."""
    model = load_model(ModelConfig(str(llama)), [Task("any", "prompt", [], [])])
    library = Library.create(run / "library" / "seed-0", model, rank=2)
    library.profile_with({"blocks": BLOCKS})
    vectors = torch.randn(3, 15, generator=torch.Generator().manual_seed(0))
    for number in range(3):
        library.add(make_lora(library.base, number), f"number {number}")
        library.add_prototype(number, f"task {number}", vectors[number])
        library.add_prototype(number, f"again {number}", vectors[number] + 0.01)
    return library


def test_an_expert_has_a_line_from_where_it_was_made_and_a_mark_for_each_task(run):
    tree, chart = draw_experts(load_views({"run": run})).axes
    marks = {
        (line.get_xdata()[0], line.get_ydata()[0], line.get_color())
        for line in tree.lines
        if line.get_marker() != "None"
    }
    looks = {action: colour for action, (colour, _) in LOOKS.items()}
    assert marks == {
        (1, 0, looks["create"]), (2, 1, looks["fork"]), (3, 0, looks["reuse"]), (5, 2, looks["create"])
    }  # fmt: skip
    lines = [tuple(line.get_xdata()) for line in tree.lines if line.get_marker() == "None"]
    assert lines == [(1, 5.5), (2, 5.5), (2, 2), (5, 5.5)]
    assert [tick.get_text() for tick in tree.get_yticklabels()] == ["0  task 0", "1  task 1", "2  task 4"]
    assert [text.get_text() for text in chart.texts] == ["The library isn't in the run's folder."]


def test_tasks_with_like_signals_lie_near_each_other(run, library):
    places, experts, tasks = places_of(library)
    assert (experts, tasks[:2]) == ([0, 0, 1, 1, 2, 2], ["task 0", "again 0"])
    near = np.linalg.norm(places[::2] - places[1::2], axis=1)
    assert near.max() < 0.1 < np.linalg.norm(places[0] - places[2])
    _, chart = draw_experts(load_views({"run": run})).axes
    assert len(chart.lines) == 6
    assert {text.get_text() for text in chart.texts} >= {"0 task 0", "2 again 2"}


def test_a_damaged_library_is_said_in_the_picture(run, library):
    (library.path / "library.json").write_text("{")
    with pytest.raises(StateError):
        Library.open(library.path)
    figure = draw_experts(load_views({"run": run}))
    assert "library.json" in figure.axes[1].texts[0].get_text()
    figure.draw_without_rendering()


def test_a_report_has_it_and_other_runs_do_not(run, make_run, tmp_path):
    assert "experts" in [picture.path.stem for picture in write_plots(load_views({"run": run}), tmp_path)]
    assert draw_experts(load_views({"plain": make_run("plain", TASKS)})) is None
    assert n_experts([]) == 0
