import copy
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from everlearn.config import build_strategies, load_recipe, read_yaml, write_yaml
from everlearn.errors import ConfigError, EverlearnError
from everlearn.home.settings import Settings
from everlearn.runs import read_recipe
from everlearn.strategies.ewc import EWC
from everlearn.trainer import ContinualTrainer
from support.recipes import plain_recipe

RECIPE = plain_recipe(["replay", {"name": "ewc", "strength": 5}], seeds=[0, 1])


def changed(path, value):
    recipe = copy.deepcopy(RECIPE)
    *parents, last = path.split(".")
    place = recipe
    for key in parents:
        place = place.setdefault(key, {}) if isinstance(place, dict) else place[int(key)]
    place[int(last) if isinstance(place, list) else last] = value
    return recipe


def test_a_recipe_is_read_from_a_file_or_a_mapping(tmp_path):
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(RECIPE))
    recipe = load_recipe(tmp_path / "a.yaml")
    assert recipe == load_recipe(RECIPE)
    assert load_recipe(asdict(recipe)) == recipe
    assert recipe.all_seeds() == [0, 1]
    replay, ewc = recipe.build_strategies()
    assert (replay.name, ewc.name, ewc.strength) == ("replay", "ewc", 5.0)
    assert recipe.build_learner().learning_rate == 0.01
    assert recipe.schedule_options() == {"per_task": 48, "per_task_eval": 20}
    assert load_recipe({"stream": {"name": "digits"}}).all_seeds() == [0]


WRONG = {
    "sttream": (1, r"^sttream: is unknown.*Did you mean 'stream'"),
    "learner.epohcs": (1, r"^learner\.epohcs: is unknown.*Did you mean 'epochs'"),
    "learner.epochs": (1.5, r"^learner\.epochs: has the wrong type. Got 1\.5. Give int"),
    "learner.learning_rate": ("1e-4", r"^learner\.learning_rate: .*Give float . auto, without quotes"),
    "learner.batch_size": (0, r"^learner\.batch_size: is out of range. Got 0. .*at least 1"),
    "learner.betas": ([0.9], r"^learner\.betas: has the wrong type"),
    "learner.optimizer": ("adamv", r"^learner\.optimizer: is unknown. Got 'adamv'. Did you mean 'adam"),
    "learner.clip": (-1, r"^learner\.clip: is out of range"),
    "learner.name": ("stf", r"^learner\.name: is no learner.*Did you mean 'sft'"),
    "model.adapter.rank": ("4", r"^model\.adapter\.rank: has the wrong type"),
    "model.adapter.name": ("loar", r"^model\.adapter\.name: is unknown.*Did you mean 'lora'"),
    "model.dtype": ("fp32", r"^model\.dtype: is unknown"),
    "model.head": (3, r"^model\.head: has the wrong type"),
    "model": ([], r"^model: has the wrong type"),
    "stream.name": ("digit", r"^stream\.name: is no stream.*Did you mean 'digits'"),
    "stream.n_task": (2, r"^stream\.n_task: is unknown.*Did you mean 'n_tasks'"),
    "stream.mode": (1, r"^stream\.mode: has the wrong type"),
    "strategies.1.strength": (-2, r"ewc\.strength: is out of range. Got -2"),
    "strategies.1.lambda": (2, r"^strategies\[1\]\.lambda: is unknown"),
    "strategies.1.precision_": ({}, r"^strategies\[1\]\.precision_: is unknown"),
    "strategies.0": ("repla", r"^strategies\[0\]\.name: is no strategy.*Did you mean 'replay'"),
    "strategies": (["ewc", "ewc"], r"^strategies: a strategy stands twice"),
    "strategies.1": ("joint", r"joint can't stand beside replay|replay can't stand beside joint"),
    "seeds": ([1, 1], r"^seeds: repeat"),
    "seed": (4, r"^seeds: stands beside seed"),
    "evaluation.future": ("yes", r"^evaluation\.future: has the wrong type"),
    "checkpoint.every_steps": (0, r"^checkpoint\.every_steps: is out of range"),
    "processes": (True, r"^processes: has the wrong type"),
    "track": ("wandb", r"^track: has the wrong type"),
}


@pytest.mark.parametrize("path", WRONG)
def test_what_is_wrong_is_named_by_its_path_before_anything_loads(path, monkeypatch):
    value, message = WRONG[path]
    monkeypatch.setattr("everlearn.streams.digits.load_digits", lambda: pytest.fail("the data was read"))
    with pytest.raises(ConfigError, match=message):
        load_recipe(changed(path, value))


def test_betas_out_of_range_are_refused():
    with pytest.raises(ConfigError, match=r"learner\.betas.*Got 1\.5"):
        load_recipe(changed("learner.betas", [0.9, 1.5]))


def test_a_missing_key_is_named():
    with pytest.raises(ConfigError, match="lacks 'stream'"):
        load_recipe({})
    with pytest.raises(ConfigError, match="stream: has no name"):
        load_recipe({"stream": {}})


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("learner.epochs=7", ("learner", "epochs"), 7),
        ("learner.learning_rate=1.0e-4", ("learner", "learning_rate"), 1e-4),
        ("learner.learning_rate=1e-4", ("learner", "learning_rate"), 1e-4),
        ("learner.clip=null", ("learner", "clip"), None),
        ("strategies.1.strength=9", ("strategies", 1, "strength"), 9),
        ("strategies=[none]", ("strategies",), ["none"]),
        ("strategies.0={name: replay, capacity: 3}", ("strategies", 0, "capacity"), 3),
        ("evaluation.future=true", ("evaluation", "future"), True),
    ],
)
def test_set_overrides_values_read_as_yaml(override, path, value):
    before = copy.deepcopy(RECIPE)
    found = asdict(load_recipe(RECIPE, [override]))
    for key in path:
        found = found[key]
    assert found == value
    assert before == RECIPE, "the caller's mapping was changed"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("learner.epochs", "is no assignment"),
        ("=3", "is no assignment"),
        ("learner.epochs=[", "is no YAML value"),
        ("learner.epohcs=3", "Did you mean 'epochs'"),
        ("strategies.5.strength=3", "is no place in the list.*0 to 1"),
        ("strategies.0.capacity=3", "--set strategies.0.capacity.*'replay'"),
        ("processes.a=3", "is no mapping"),
        ("processes=2024-13-45", "is no YAML value"),
        ("learner.learning_rate=.inf", r"learner.learning_rate: is out of range. Got inf"),
        ("learner.learning_rate=1" + "0" * 400, "learner.learning_rate: is out of range"),
    ],
)
def test_a_wrong_override_is_one_sentence(override, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe({**RECIPE, "processes": 1}, [override])


LAUGHS = "\n".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]" for i in range(9))


@pytest.mark.parametrize(
    "content",
    [
        None, b"a: [", b"- 1", b"\xff", b"seed: 2024-13-45", b"seed: !!int foo", b"seed: !!timestamp foo",
        b"seed: " + b"7" * 5000, b"[" * 5000, b"stream: &o {a: *o}", f"a0: &a0 [1]\n{LAUGHS}".encode(),
    ],
    ids=range(11),
)  # fmt: skip
def test_a_file_that_is_no_recipe(tmp_path, content):
    if content is not None:
        (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"a\.yaml"):
        load_recipe(tmp_path / "a.yaml")


def test_every_recipe_of_the_project_that_names_a_stream_is_valid():
    for path in sorted((Path(__file__).parents[1] / "recipes").rglob("*.yaml")):
        content = read_yaml(path)
        if "stream" in content and "held_out" not in content:  # those of other commands have tests of their own
            read_recipe(path)


def test_strategies_may_be_objects():
    ewc = EWC(strength=3.0)
    assert build_strategies([ewc, "replay"])[0] is ewc
    with pytest.raises(EverlearnError):
        build_strategies([3])


def test_numbers_and_texts_that_look_like_them_survive_yaml(tmp_path):
    content = {"a": 1e-4, "b": "1e-4", "c": "é", "d": ["2E5", 3]}
    (tmp_path / "file.yaml").write_text(write_yaml(content), encoding="utf-8")
    assert read_yaml(tmp_path / "file.yaml") == content


def test_a_class_from_outside_that_is_no_strategy_is_refused(tmp_path, monkeypatch):
    (tmp_path / "some_classes.py").write_text(
        "import dataclasses\n\n@dataclasses.dataclass\nclass Other:\n    n: int = 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"strategies\[1\]: is no strategy. Got 'Other'. Derive its class from"):
        build_strategies(["ewc", "some_classes:Other"])


def test_a_learner_of_another_kind_of_run_is_refused():
    wanted = r"learner\.name: learns in a kind of run of its own\. Got 'ppo'\. Write a recipe with kind: reinforcement"
    for make in (
        lambda: read_recipe({"kind": "supervised", **plain_recipe([]), "learner": {"name": "ppo"}}),
        lambda: Settings(learner={"name": "ppo"}),
        lambda: ContinualTrainer("pocket", learner={"name": "ppo"}),
    ):
        with pytest.raises(ConfigError, match=wanted):
            make()
