import pytest

from everlearn.errors import ConfigError
from everlearn.learners.meta.config import ALGORITHMS, FOREIGN, MetaConfig


def test_each_algorithm_stands_by_its_name_alone():
    assert [MetaConfig(algorithm=name).algorithm for name in ALGORITHMS] == list(FOREIGN)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algorithm": "mamal"}, "Did you mean 'maml'"),
        ({"inner_lr": 0}, "learner.inner_lr"),
        ({"adaptation_steps": 0}, "learner.adaptation_steps"),
        ({"inner_batch_size": 11}, "learner.inner_batch_size"),
        ({"clip": -1.0}, "learner.clip"),
        ({"outer_optimizer": "adamw"}, "learner.outer_optimizer"),
        ({"adapted": "head"}, "learner.adapted"),
        ({"algorithm": "reptile", "first_order": True}, "learner.first_order: means nothing to reptile"),
        ({"algorithm": "mer", "n_support": 3}, "learner.n_support: means nothing to mer"),
        ({"memory_size": 7}, "learner.memory_size: means nothing to maml"),
    ],
)
def test_a_bad_setting_is_named(options, message):
    with pytest.raises(ConfigError, match=message):
        MetaConfig(**options)


def test_rows_of_an_inner_step():
    assert MetaConfig(n_support=7).inner_rows == 7
    assert MetaConfig(algorithm="oml").inner_rows == 1
    assert MetaConfig(n_support=7, inner_batch_size=3).inner_rows == 3
