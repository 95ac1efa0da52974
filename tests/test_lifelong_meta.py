"""Learning to learn from the data of tasks, from what a lifelong model has learned."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from everlearn.errors import ConfigError, ModelError, StreamError
from everlearn.learners.meta import MetaLearner as Learner
from everlearn.lifelong import LifelongConfig, LifelongModel, LifelongTrainer, MetaLearner
from everlearn.models.load import ModelConfig
from support.lifelong import moods, sums
from support.runs import assert_same
from support.tasks import classify_task

pytestmark = pytest.mark.filterwarnings("ignore:Task .* nothing was learned", "ignore:task .* held out")
SMALL = {"n_support": 4, "n_query": 4, "meta_batch_size": 2}


def learned(base_model, rows, **options) -> LifelongModel:
    options = {"epochs": 1, "batch_size": 4, "forward_transfer": False, "progress": False, **options}
    model = LifelongModel(base_model, LifelongConfig(**options))
    LifelongTrainer(model).learn_task(0, rows)
    return model


@pytest.mark.parametrize("rows", [moods, sums])
def test_it_learns_in_a_copy_that_begins_where_the_model_is(rows, bert, llama):
    model = learned(str(bert if rows is moods else llama), rows(0), technique="ewc")
    model.add_capacity(2)
    before = {name: tensor.clone() for name, tensor in model.trainer.run.model.adapters.tensors().items()}
    meta = MetaLearner(model, inner_lr=0.1, outer_lr=0.01, adaptation_steps=2, options=SMALL)
    losses = meta.meta_train([rows(0, 16), rows(1, 16)], n_steps=2)
    assert len(losses) == 2
    assert all(torch.equal(before[name], tensor) for name, tensor in model.trainer.run.model.adapters.tensors().items())
    moved = dict(meta.model.adapters.tensors())
    lora = [name for name in before if "lora_" in name]
    assert lora
    assert not all(torch.equal(before[name], moved[name]) for name in lora)
    kept = {name: tensor.clone() for name, tensor in moved.items()}
    with meta.adapt(rows(2, 16)) as predict:
        asked = ["is red", "is is green"] if rows is moods else ["1+2="]
        answers = predict(asked)
    assert len(answers) == len(asked)
    assert rows is sums or set(answers) <= {"red", "green"}
    assert all(
        torch.equal(kept[name], tensor) for name, tensor in meta.model.adapters.tensors().items() if name in kept
    )
    assert 0 <= meta.score_after(rows(2, 16)).value <= 1


def test_a_classifier_with_one_head_learns_its_heads_too_and_resumes_exactly(bert):
    config, tasks = ModelConfig(str(bert), head="shared"), [classify_task(number) for number in range(3)]

    def made() -> Learner:
        return Learner(config, inner_lr=0.1, outer_lr=0.01, adaptation_steps=2, options=SMALL)

    whole, first, second = made(), made(), made()
    for learner in (whole, first):
        learner.fit(tasks[:2], 1)
        with learner.adapted(tasks[2]):  # labels that came later
            pass
    heads = [p.clone() for p in first.model.adapters.head.parameters()]
    second.load_state(first.state(), tasks[:2])
    for learner in (whole, second):
        learner.fit(tasks[:2], 1)
    assert_same(whole.state()["weights"], second.state()["weights"])
    assert any(not torch.equal(a, b) for a, b in zip(heads, second.model.adapters.head.parameters(), strict=False))
    with pytest.raises(ModelError, match=r"a new task brings a new head.*head: shared"):
        Learner(str(bert), options=SMALL).fit(tasks, 1)


def test_a_start_learned_from_tasks_goes_further_on_a_new_one():
    def loader(number: int) -> DataLoader:  # y = slope * x
        x = torch.linspace(-1, 1, 40)[:, None]
        return DataLoader(TensorDataset(x, (1 + number / 10) * x), 40)

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
    meta = MetaLearner(LifelongModel(network, LifelongConfig()), 0.1, 0.01, 2, options=SMALL)
    (one, *_, other) = meta.meta_train({number: loader(number) for number in range(4)}, n_steps=40)
    assert other < one / 3
    with meta.adapt(loader(5)) as predict:
        assert (predict(torch.ones(1, 1)) - 1.5).abs() < 0.5


def test_what_does_not_go_is_named(bert, llama):
    model = learned(str(bert), moods(0), technique="progressive")
    LifelongTrainer(model).learn_task(1, moods(1))
    with pytest.raises(ConfigError, match=r"the technique changed the model's structure. Got \['add_column"):
        MetaLearner(model, options=SMALL).meta_train([moods(0, 16)], 1)
    with pytest.raises(ConfigError, match=r"learner.inner_lr"):
        MetaLearner(model, inner_lr=0)
    with pytest.raises(StreamError, match=r"too few training rows"):
        MetaLearner(learned(str(llama), sums(0))).meta_train([sums(0)], 1)
