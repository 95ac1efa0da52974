from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from everlearn.errors import ConfigError
from everlearn.strategy import HOOKS, Strategy, learned, overriding, why_apart


@dataclass
class Counting(Strategy):
    step_size: float = 0.5
    seen_: list = learned(list)
    kept_: dict = learned(dict)

    def penalty(self, step):
        return torch.zeros(())


@dataclass
class Further(Counting):
    def end_task(self, run, task):
        self.seen_.append(task)


def test_a_misspelt_hook_fails_when_the_class_is_made():
    with pytest.raises(ConfigError, match=r"Wrong\.edit_grad: is no hook.*Did you mean 'edit_grads'"):

        class Wrong(Strategy):
            def edit_grad(self, step):
                pass


def test_other_methods_are_allowed():
    class Fine(Strategy):
        def estimate(self):
            pass

        def _penalty(self):
            pass


def test_only_overriding_strategies_are_called():
    first, second, third = Strategy(), Counting(), Further()
    every = [first, second, third]
    assert overriding(every, "penalty") == [second, third]
    assert overriding(every, "end_task") == [third]
    assert all(overriding([first], hook) == [] for hook in HOOKS)


def test_state_is_what_ends_in_an_underscore():
    strategy = Counting(step_size=2.0)
    strategy.kept_["w"] = torch.ones(3, dtype=torch.float64)
    assert set(strategy.state()) == {"seen_", "kept_"}
    other = Counting()
    other.load_state(strategy.state())
    assert torch.equal(other.kept_["w"], strategy.kept_["w"])
    assert repr(strategy) == "Counting(step_size=2.0)"
    assert strategy.state_bytes() >= 24
    with pytest.raises(TypeError):
        Counting(kept_={})


def test_hooks_do_nothing_by_default():
    strategy = Strategy()
    assert strategy.train_data("mixture", None) == "mixture"
    assert strategy.penalty(None) is None
    assert [strategy.edit_grads(None), strategy.after_step(None)] == [None, None]
    assert strategy.facts() == {}


def test_a_method_is_unsuited_where_all_traits_of_an_entry_meet():
    class Fussy(Strategy):
        unsuited: ClassVar[dict[str, str]] = {"shared_head": "one head", "causal+full": "both at once"}

    Fussy().check_model(("causal", "lora"))
    Fussy().check_model(("tensor", "full", "task_head"))
    with pytest.raises(ConfigError, match="both at once"):
        Fussy().check_model(("causal", "full"))
    with pytest.raises(ConfigError, match="one head"):
        Fussy().check_model(("tensor", "full", "shared_head"))


def test_methods_are_apart_where_one_names_the_other_or_isolates_what_the_other_would_hold():
    class Isolating(Strategy):
        name, isolates = "isolating", True

    class Protecting(Strategy):
        name, protects = "protecting", True

    class Choosy(Strategy):
        name = "choosy"
        conflicts: ClassVar[dict[str, str]] = {"protecting": "it is choosy"}

    for pair in ((Isolating, Protecting), (Protecting, Isolating)):
        assert why_apart(*pair).startswith("isolating keeps what earlier tasks answer")
    assert why_apart(Protecting, Choosy) == why_apart(Choosy, Protecting) == "it is choosy"
    assert why_apart(Isolating, Choosy) is why_apart(Protecting, Counting) is None
