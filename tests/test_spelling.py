"""Settings in the usual spelling: what each name stands for, and what has no counterpart."""

from dataclasses import fields

import pytest

from everlearn.errors import ConfigError
from everlearn.registry import find
from everlearn.spelling import STRATEGIES, Doubled, learner_options, strategies_of

SPELLED = [  # strategy, section, the fields that it sets
    ("ewc", {"lambda": 400.0, "gamma": 0.9, "fisher_samples": 64}, {"strength": 400.0, "decay": 0.9, "n_examples": 64}),
    ("gamma_ewc", {"lambda": 40.0, "fisher_samples": 50}, {"strength": 40.0, "n_samples": 50}),
    ("si", {"c": 0.1, "xi": 0.01}, {"strength": 0.2, "damping": 0.01}),
    ("mas", {"lambda": 2.0, "num_samples": 8}, {"strength": 4.0, "n_examples": 8}),
    ("rwalk", {"lambda": 1.5, "delta_t": 5}, {"strength": 3.0, "interval": 5}),
    ("l2", {"lambda": 0.5}, {"strength": 0.5}),
    ("lwf", {"temperature": 2.0, "alpha": 0.5}, {"temperature": 2.0, "strength": 0.5}),
    ("sdft", {"alpha": 0.5}, {"strength": 0.5}),
    ("packnet", {"prune_percentage": 0.6, "use_magnitude_pruning": True}, {"prune_fraction": 0.6}),
    ("hat", {"smax": 100.0, "lambda": 0.5}, {"sharpest": 100.0, "strength": 0.5}),
    ("gem", {"memory_size": 256, "margin": 0.5}, {"capacity": 256, "margin": 0.5}),
    ("agem", {"memory_size": 256, "sample_size": 32}, {"capacity": 256, "batch_size": 32}),
    ("ogd", {"memory_size": 50}, {"capacity": 50}),
    ("gpm", {"epsilon": 0.9}, {"threshold": 0.9}),
    ("replay", {"buffer_size": 200, "selection_strategy": "herding"}, {"capacity": 200, "selection": "herding"}),
    ("er_ace", {"buffer_size": 200}, {"capacity": 200}),
    ("der", {"buffer_size": 200, "alpha": 0.3}, {"capacity": 200, "alpha": 0.3}),
    ("derpp", {"buffer_size": 200, "beta": 0.3}, {"capacity": 200, "beta": 0.3}),
    ("gdumb", {"mem_size": 200}, {"capacity": 200}),
    ("ema", {"alpha": 0.9}, {"decay": 0.9}),
    ("olora", {"lambda_1": 0.3, "lambda_2": 0.1}, {"strength": 0.3, "norm_strength": 0.1}),
    ("l2p", {"pool_size": 8, "prompt_length": 3, "top_k": 2}, {"size": 8, "length": 3, "n_chosen": 2}),
    ("progressive_prompts", {"prompt_length": 4}, {"length": 4}),
]


@pytest.mark.parametrize(("name", "section", "expected"), SPELLED, ids=[name for name, *_ in SPELLED])
def test_the_usual_names_of_a_strategy_set_its_fields(name, section, expected):
    (strategy,) = strategies_of({"continual_strategy": {name: section}})
    assert strategy == type(strategy)(**expected)


def test_every_strategy_with_usual_names_is_tried_above_and_every_name_stands_for_a_field():
    assert [name for name, *_ in SPELLED] == list(STRATEGIES)
    for name, usual in STRATEGIES.items():
        own = {f.name for f in fields(find("strategy", name)) if f.init}
        meant = {m.field if isinstance(m, Doubled) else m for m in usual.values() if isinstance(m, str | Doubled)}
        assert meant <= own, name


def test_a_section_is_on_unless_it_says_otherwise():
    sections = {"ewc": {}, "lwf": {"enabled": False, "alpha": 0.5}, "replay": {"enabled": True}}
    assert [strategy.name for strategy in strategies_of({"continual_strategy": sections})] == ["ewc", "replay"]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"packnet": {"use_magnitude_pruning": False}},
            r"use_magnitude_pruning: can't be switched. Got False.*use hat",
        ),
        ({"packnet": {"retrain_epochs": 3}}, r"retrain_epochs: has no counterpart here. Got 3. Write retrain_share"),
        ({"packnet": {"prune_percentage": 75}}, r"packnet.prune_fraction: is out of range. Got 75"),
        ({"packnet": {"prune_percent": 0.5}}, r"packnet.prune_percent: is unknown.*Did you mean 'prune_percentage'"),
        ({"gem": {"patterns_per_experience": 9}}, r"has no counterpart here. Got 9. Write memory_size"),
        ({"replay": {"buffer_size": 9, "capacity": 9}}, r"replay.capacity: says the same as buffer_size"),
        ({"si": {"c": "high"}}, r"si.strength: has the wrong type. Got 'high'"),
        ({"ewc": {"enabled": "yes"}}, r"ewc.enabled: is neither on nor off. Got 'yes'"),
        ({"ewc": True}, r"config.continual_strategy.ewc: must be a mapping. Got True"),
        ({"ewcc": {}}, r"config.continual_strategy.ewcc: is no strategy.*Did you mean 'ewc'"),
    ],
)
def test_what_is_meant_otherwise_is_named(section, message):
    with pytest.raises(ConfigError, match=message):
        strategies_of({"continual_strategy": section})


def test_the_learner_s_usual_names():
    config = {"optimizer": {"type": "adam", "lr": 0.01, "weight_decay": 0.1}, "training": {"num_epochs": 3}}
    expected = {"optimizer": "adam", "learning_rate": 0.01, "weight_decay": 0.1, "epochs": 3}
    assert learner_options(config) == expected
    with pytest.raises(ConfigError, match=r"config.optimizer.learning_rate: says the same as lr"):
        learner_options({"optimizer": {"lr": 0.1, "learning_rate": 0.2}})
