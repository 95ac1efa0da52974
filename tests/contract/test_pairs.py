"""What any two methods must keep true side by side: each of the two changes what is learned, or the pair is refused."""

import functools
import re
from collections.abc import Callable

import pytest
import torch

from everlearn import registry
from everlearn.config import build_strategies
from everlearn.errors import ConfigError
from everlearn.strategy import why_apart
from support.runs import answers, learn_at, make_bench, suits

NAMES = registry.names("strategy")
CLASSES = {name: registry.find("strategy", name) for name in NAMES}
KINDS = ("domain", "contrary_lora", "contrary_full")  # a pair stands on the first that suits both
ACTING = {  # where the defaults are too weak, too strong or too large to be seen in a few steps of tiny tasks
    "cmt": {"epochs": 2, "replay_alpha": 0.02},
    "ema": {"decay": 0.5},
    "ewc": {"strength": 1000.0},
    "experts": {"share_first": 2},
    "gamma_ewc": {"strength": 1000.0},
    "gpm": {"threshold": 0.5},
    "grow": {"when": "always", "new_neurons": 4, "new_rank": 2},
    "l2": {"strength": 10.0},
    "l2p": {"size": 2, "length": 10, "n_chosen": 2},
    "mas": {"strength": 100.0},
    "ogd": {"capacity": 10},
    "olora": {"strength": 10.0},
    "pcgr": {"epochs": 2, "replay_alpha": 0.02},
    "rwalk": {"strength": 100.0},
    "si": {"strength": 1000.0},
}
VISIBLE = 1e-5  # more than rounding

Answers = tuple[torch.Tensor, torch.Tensor]
Learn = Callable[..., Answers]


@pytest.fixture(scope="module")
def learn(llama, bert) -> Learn:
    """Return a function that lets methods learn two tasks: (kind of model, names) -> the answers to each task."""
    benches = {kind: make_bench(kind, llama, bert) for kind in KINDS}

    @functools.cache
    def learn_once(kind: str, *names: str) -> Answers:
        bench = benches[kind]
        strategies = [{"name": name, **ACTING.get(name, {})} for name in names]
        run = bench.run(strategies, learning_rate=0.03)
        first, second = bench.tasks
        learn_at(run, first, 0)
        before = answers(run, first)
        learn_at(run, second, 1)
        after = answers(run, first), answers(run, second)
        if any(CLASSES[name].isolates for name in names):
            assert torch.equal(before, after[0]), f"{' beside '.join(names)}: an isolated task's answers changed"
        return after

    return learn_once


def differ(some: Answers, others: Answers) -> bool:
    return any(not torch.allclose(one, other, rtol=0, atol=VISIBLE) for one, other in zip(some, others, strict=True))


def idle(learn: Learn, first: str, second: str) -> list[str]:
    """Return what is wrong with a pair: a sentence for each method that changes nothing beside the other."""
    kind = next((kind for kind in KINDS if suits(CLASSES[first], kind) and suits(CLASSES[second], kind)), None)
    if kind is None:  # no model suits both
        return []
    together = learn(kind, first, second)
    assert all(torch.isfinite(one).all() for one in together), (first, second)
    return [
        f"{one} does nothing beside {other} ({kind})"
        for one, other in ((first, second), (second, first))
        if CLASSES[one].neutral != {} and not differ(together, learn(kind, other))
    ]


@pytest.mark.parametrize("first", NAMES)
def test_each_of_two_methods_changes_what_is_learned_or_the_pair_is_refused(first, learn):
    found = []
    for second in (name for name in NAMES if name > first):
        reason = why_apart(CLASSES[first], CLASSES[second])
        if reason is None:
            found += idle(learn, first, second)
            continue
        with pytest.raises(ConfigError, match=f"{first} can't stand beside {second}.*{re.escape(reason)}"):
            build_strategies([first, second])
    assert not found
