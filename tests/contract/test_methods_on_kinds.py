"""Every method on every way in which a text is answered: it learns two tasks, or refuses before anything is trained."""

from dataclasses import replace

import pytest
import torch

from everlearn import registry
from everlearn.errors import ConfigError
from support.runs import TRAITS, Bench, make_bench, suits

KINDS = ("multilabel", "preference", "score")
NAMES = registry.names("strategy")


@pytest.fixture(scope="module", params=KINDS)
def small(request, llama, bert) -> Bench:
    """Two tasks of a kind, of few rows."""
    bench = make_bench(request.param, llama, bert)
    tasks = tuple(replace(task, train=task.train[:4], evaluation=task.evaluation[:2]) for task in bench.tasks)
    return replace(bench, tasks=tasks)


@pytest.mark.parametrize("name", NAMES)
def test_a_method_learns_them_or_refuses(small, name):
    if not suits(registry.find("strategy", name), small.kind):
        with pytest.raises(ConfigError, match=rf"strategy '{name}'"):
            small.run([name])
        return
    run = small.run([name], epochs=1)
    assert set(TRAITS[small.kind]) == set(run.model.traits)
    small.learn(run)
    for task in small.tasks:
        assert len(run.score(task).outcomes) == len(task.evaluation)
    assert all(torch.isfinite(tensor).all() for tensor in run.model.adapters.tensors().values())
