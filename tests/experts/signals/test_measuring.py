"""All three signals of a task, and the library that keeps how they are measured."""

import pytest
import torch
from torch import nn

from everlearn.errors import ConfigError
from everlearn.experts import Library
from everlearn.experts.signals import SignalConfig, Signals, Space
from everlearn.models.load import AdapterConfig, ModelConfig, load_model
from everlearn.streams.arena.stream import ArenaStream
from everlearn.types import Task
from support.experts import make_lora, shake
from support.tasks import classify_task, prompt_task, tag_task, tensor_task

SMALL = SignalConfig(k_examples=4, sketch_size=21)


@pytest.mark.parametrize("task", [prompt_task(0), classify_task(1), tag_task(0)], ids=lambda task: task.kind)
def test_what_is_added_to_the_base_changes_nothing(task, llama, bert):
    folder = llama if task.kind == "prompt" else bert
    model = load_model(ModelConfig(str(folder), AdapterConfig(rank=2)), [task])
    signals = Signals(model, SMALL)
    before = signals.of("a task", task, task.train)
    assert before.shape == (signals.dimension,) == (32 + 21 + 9,)
    assert before.isfinite().all()
    shake(model, 0)
    state, model.network.training = torch.get_rng_state(), True
    flags = [parameter.requires_grad for parameter in model.network.parameters()]
    assert torch.equal(signals.of("a task", task, task.train), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.network.training
    assert [parameter.requires_grad for parameter in model.network.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.network.parameters())


def test_each_part_of_a_task_moves_its_own_part_of_the_signal(model):
    signals = Signals(model, SMALL)
    one, other = prompt_task(0), prompt_task(1)
    first = signals.of("a task", one, one.train).split(list(signals.blocks.values()))
    renamed = signals.of("something else", one, one.train).split(list(signals.blocks.values()))
    moved = signals.of("a task", other, other.train).split(list(signals.blocks.values()))
    assert [torch.equal(a, b) for a, b in zip(first, renamed, strict=True)] == [False, True, True]
    assert [torch.equal(a, b) for a, b in zip(first, moved, strict=True)] == [True, False, False]


def test_no_more_than_k_rows_count(model, monkeypatch):
    task, seen = prompt_task(0), []
    encode = model.objective.encode
    monkeypatch.setattr(model.objective, "encode", lambda rows, task: seen.append(len(rows)) or encode(rows, task))
    Signals(model, SMALL).of("a task", task, task.train)
    Signals(model, SMALL).of("a task", task, task.train[:3])
    assert seen == [4, 3]


def test_what_tells_nothing_is_refused(model, bert):
    task = prompt_task(0)
    with pytest.raises(ConfigError, match="description: is empty"):
        Signals(model, SMALL).of(" ", task, task.train)
    with pytest.raises(ConfigError, match="task 'add_0': has no rows"):
        Signals(model, SMALL).of("a task", task, [])
    tagged = tag_task(0)
    rows = [{**row, "tags": [-100] * len(row["tags"])} for row in tagged.train]
    encoder = load_model(ModelConfig(str(bert)), [tagged])
    with pytest.raises(ConfigError, match="no row has a target"):
        Signals(encoder, SMALL).of("a task", tagged, rows)
    plain = load_model(nn.Linear(6, 4), [tensor_task(0)])
    with pytest.raises(ConfigError, match="a plain module reads no description"):
        Signals(plain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k_examples": 0}, "signals: k_examples: is out of range"),
        ({"sketch_size": 0}, "signals: sketch_size: is out of range"),
        ({"max_tokens": 1}, "signals: max_tokens: is out of range"),
        ({"grad_sketch_layers": "last"}, "grad_sketch_layers: is unknown"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        SignalConfig(**options)


def test_a_library_keeps_how_its_profiles_are_measured(model, library):
    signals, task = Signals(model, SMALL), prompt_task(0)
    empty = library.snapshot()
    library.add(make_lora(library.base, 0), "adds")
    signals.bind(library)
    library.add_prototype(0, task.name, signals.of("adds", task, task.train))
    opened = Library.open(library.path)
    assert opened.profiled_with == signals.settings
    n = len(opened.events())
    Signals(model, SMALL).bind(opened)
    assert len(opened.events()) == n
    space = Space.of(opened.prototypes().vectors, signals.blocks)
    assert space.joined(opened.prototypes().vectors).shape == (1, signals.dimension)
    for options, message in (
        ({"sketch_size": 22}, "were made with blocks .*'gradient': 21.*Got"),
        ({"sketch_size": 21, "seed": 1}, "were made with seed 0. Got 1"),
        ({"sketch_size": 21, "text_inputs": True}, "were made with text_inputs False. Got True"),
    ):
        with pytest.raises(ConfigError, match=message):
            Signals(model, SignalConfig(**options)).bind(opened)
    library.restore(empty, forget=True)
    assert library.profiled_with is None


def test_profiles_of_unknown_make_are_not_mixed_with_others(model, library):
    library.add(make_lora(library.base, 0), "adds")
    library.add_prototype(0, "task", torch.ones(62))
    with pytest.raises(ConfigError, match="with settings unknown"):
        Signals(model, SMALL).bind(library)


@pytest.mark.real_model
@pytest.mark.xdist_group("real_model")
def test_smollm2_knows_a_task_again(smollm2):
    tasks = ArenaStream(("comparison", "sequence"), n_train=8, n_validation=0, n_eval=1, difficulty=1).build()
    signals = Signals(load_model(ModelConfig(smollm2), tasks), SignalConfig(k_examples=4))
    halves = [
        signals.of(f"Problems of the type {task.name}.", task, half)
        for task in tasks for half in (task.train[:4], task.train[4:])
    ]  # fmt: skip
    for weights in ({"text": 0, "context": 0}, {}):
        vectors = Space.of(torch.stack(halves), signals.blocks, weights).joined(torch.stack(halves))
        alike = vectors @ vectors.T - 2 * torch.eye(4)
        assert alike.argmax(1).tolist() == [1, 0, 3, 2], weights


def test_a_task_is_all_that_a_signal_depends_on(model):
    task = prompt_task(0)
    renamed = Task("another name", "prompt", task.train, [])
    signals = Signals(model, SMALL)
    assert torch.equal(signals.of("adds", task, task.train), signals.of("adds", renamed, renamed.train))
