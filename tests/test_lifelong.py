"""Lifelong learning in a few words: the same numbers as a recipe's, saved and gone on with, and what bad input says."""

import json

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from everlearn import ContinualTrainer
from everlearn.errors import ConfigError, StateError, StreamError
from everlearn.lifelong import ExperienceReplay, LifelongConfig, LifelongModel, LifelongTrainer, TaskConfig
from everlearn.registry import names
from everlearn.runs import run
from everlearn.state import load_value
from support.lifelong import moods, sums

pytestmark = pytest.mark.filterwarnings("ignore:Task .* nothing was learned", "ignore:task .* held out")


def made(base_model, **options) -> LifelongTrainer:
    options = {"epochs": 1, "batch_size": 4, "progress": False, **options}
    return LifelongTrainer(LifelongModel(base_model, LifelongConfig(**options)))


def same_state(first: LifelongTrainer, second: LifelongTrainer) -> None:
    mine, theirs = (one.model.trainer.run.state()["weights"] for one in (first, second))
    assert list(mine) == list(theirs)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert str(first.evaluate_all_tasks()) == str(second.evaluate_all_tasks())


@pytest.mark.parametrize("rows", [moods, sums])
def test_its_numbers_are_those_of_a_recipe_to_the_last_bit(rows, bert, llama, tmp_path):
    model, tasks = str(bert if rows is moods else llama), {}
    trainer = made(model, technique=["rehearsal", {"name": "ewc", "ewc_lambda": 50.0}], seed=3)
    for number in range(3):
        parts = {"train": rows(number)[:8], "test": rows(number)[8:]}
        trainer.learn_task(number, parts)
        for role, own in parts.items():
            text = "".join(json.dumps(row) + "\n" for row in own)
            (tmp_path / f"{number}-{role}.jsonl").write_text(text, encoding="utf-8")
        files = {role: str(tmp_path / f"{number}-{role}.jsonl") for role in parts}
        tasks[f"task_{number}"] = {"train": files["train"], "eval": files["test"]}
    recipe = {
        "stream": {"name": "files", "tasks": [{"name": name, **files} for name, files in tasks.items()]},
        "model": {"name": model},
        "learner": {"epochs": 1, "batch_size": 4},
        "strategies": ["replay", {"name": "ewc", "strength": 50.0}],
        "evaluation": {"future": True},
        "seed": 3,
        "device": "cpu",
    }
    results = run(recipe, tmp_path / "run")
    weights = load_value(tmp_path / "run" / "final" / "seed-3")["weights"]
    mine = trainer.model.trainer.run.state()["weights"]
    assert all(torch.equal(mine[name], weights[name]) for name in weights)
    found = trainer.evaluate_all_tasks()
    for name in ("average_accuracy", "backward_transfer", "forward_transfer", "forgetting", "learning_accuracy"):
        told = results["summary"][name]
        assert (found[name].value, found[name].low, found[name].high) == (told["mean"], told["low"], told["high"])
    assert found["task_1"].n == 4
    assert set(found) > {"task_0", "forgetting"}


def test_it_goes_on_bit_for_bit_with_what_was_stored_and_grown(bert, tmp_path):
    whole, first = made(str(bert), technique="ewc"), made(str(bert), technique="ewc")
    memories = [ExperienceReplay(6, "herding"), ExperienceReplay(6, "herding")]
    for trainer, memory in zip((whole, first), memories, strict=True):
        trainer.learn_task_with_replay(0, moods(0), memory)
        memory.store_examples(moods(0), 0)
        trainer.model.add_capacity(4)
        memory.sample(2)
    first.save(tmp_path)
    second = LifelongTrainer.load(tmp_path, progress=False)
    assert second.model.config == first.model.config
    assert len(second.replay) == 6
    assert second.replay.sample(3) == memories[0].sample(3)
    for trainer, memory in ((whole, memories[0]), (second, second.replay)):
        trainer.learn_task_with_replay(1, moods(1), memory)
        memory.store_examples(moods(1), 1)
    same_state(whole, second)
    assert second.replay.sample(4) == memories[0].sample(4)
    trainer = second.model.trainer
    assert [strategy.name for strategy in trainer.strategies] == ["ewc", "experience_replay"]


def test_a_module_that_was_handed_over_is_still_measured_from_where_it_came(tmp_path):
    def network():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(8, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 6))

    def data(number):
        x = torch.randn(40, 8, generator=torch.Generator().manual_seed(number))
        rows = TensorDataset(x, 2 * number + (x[:, number] > 0).long())
        return [DataLoader(torch.utils.data.Subset(rows, part), 8) for part in (range(24), range(24, 40))]

    whole, first = made(network()), made(network())
    for trainer in (whole, first):
        trainer.learn_task(0, tuple(data(0)))
    first.save(tmp_path)
    second = LifelongTrainer.load(tmp_path, model=whole.model.trainer.run.model.network)  # it has learned since
    whole.learn_task(1, tuple(data(1)))
    second.learn_task(1, {"train": data(1)[0], "test": data(1)[1]})
    same_state(whole, second)
    fresh, rows = network().eval(), [row for batch in data(1)[1] for row in zip(*batch, strict=True)]
    right = [float(fresh(x[None]).argmax() == y) for x, y in rows]
    for trainer in (whole, second):  # forward transfer: from the untaught network's score to that before its turn
        (before,) = [
            one.score for one in trainer.model.trainer._log().scores if one.after == -1 and one.score.task == "task_1"
        ]
        assert list(before.outcomes) == right


def test_defaults_are_those_of_the_trainer():
    mine, plain = (
        LifelongModel("pocket", LifelongConfig(technique="replay")).trainer,
        ContinualTrainer("pocket", ["replay"]),
    )
    assert mine._learner == plain._learner
    assert mine.strategies == plain.strategies
    assert mine.source == plain.source


def test_techniques_are_the_registry_s():
    for name in names("strategy"):
        (strategy,) = LifelongConfig(technique=name, ewc_lambda=7, memory_size=9).build_strategies()
        assert strategy.name == name
        told = vars(strategy)
        assert told.get("capacity") == (9 if name in ("replay", "gem", "agem", "ogd", "gdumb", "er_ace", "der", "derpp")
                                        else None), name  # fmt: skip
    assert [one.name for one in LifelongConfig(technique=["rehearsal", "l2"]).build_strategies()] == ["replay", "l2"]
    assert LifelongConfig(technique="progressive").build_strategies()[0].name == "pnn"
    assert LifelongConfig(ewc_lambda=7).build_strategies()[0].strength == 7
    (packnet,) = LifelongConfig(technique={"name": "packnet", "prune_percentage": 0.6}).build_strategies()
    assert packnet.prune_fraction == 0.6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"technique": "ewcc"}, r"technique: is no strategy. Got 'ewcc'. Did you mean 'ewc'"),
        ({"technique": {"strength": 3}}, r"technique: is no strategy. Got None"),
        ({"technique": ["pnn", "packnet"]}, r"technique: pnn can't stand beside packnet"),
        ({"ewc_lambda": -1}, r"ewc.strength: is out of range. Got -1"),
        ({"learning_rate": 0}, r"learner.learning_rate: is out of range"),
        ({"epochs": "many"}, r"learner.epochs"),
    ],
)
def test_wrong_settings_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        LifelongConfig(**options)


def test_what_does_not_go_is_named(bert, tmp_path):
    trainer = made(str(bert))
    with pytest.raises(ConfigError, match=r"LifelongTrainer: config is not the model's.*leave it out here"):
        LifelongTrainer(trainer.model, LifelongConfig(technique="si"))
    for call in (lambda: trainer.model.add_capacity(3), lambda: trainer.model.predict_uncertainty(["is"])):
        with pytest.raises(ConfigError, match="no task was learned yet"):
            call()
    with pytest.raises(StateError, match=r"LifelongTrainer.load: none was saved there"):
        LifelongTrainer.load(tmp_path)
    with pytest.raises(StreamError, match=r"task 'task_0'"):
        trainer.learn_task(0, 3)
    trainer.learn_task("mood", moods(0))
    with pytest.raises(ConfigError, match=r"Got 'task_0'"):
        trainer.model.predict(["is"], task_id=0)
    assert trainer.model.predict(["is"], task_id="mood")[0] in ("bad", "good")
    joint = made(str(bert), technique="joint")
    with pytest.raises(ConfigError, match=r"replay: can't stand beside joint.*call learn_task"):
        joint.learn_task_with_replay(0, moods(0), ExperienceReplay(4))


def test_uncertainty_is_that_of_the_task_or_of_the_surest(bert):
    trainer = made(str(bert), forward_transfer=False)
    trainer.learn_task(0, TaskConfig(train=moods(0), labels=["good", "bad"]))
    trainer.learn_task(1, moods(1))
    texts = [row["text"] for row in moods(0)]
    of_task = [trainer.model.predict_uncertainty(texts, task_id) for task_id in (0, 1)]
    assert torch.equal(trainer.model.predict_uncertainty(texts), torch.stack(of_task).amin(0))
    assert all(0 < value <= 0.6932 for found in of_task for value in found.tolist())
    assert "forward_transfer" not in trainer.evaluate_all_tasks()
