"""Slots: an expert in one answers as peft lets it answer, and the rest of the model notices nothing."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from peft import ArrowConfig, PeftModel, create_arrow_model
from transformers import AutoModelForCausalLM

from everlearn.errors import ConfigError, ModelError, StateError
from everlearn.experts import Learned, Library, Lora, Merge, Slots, export_expert
from everlearn.models.adapters import quiet_peft
from everlearn.models.load import AdapterConfig, ModelConfig, load_model
from everlearn.models.lora import begin_lora
from everlearn.strategy import Strategy, learned
from everlearn.types import Mixture, Task
from everlearn.way import Run
from support.experts import INPUTS, logits, make_lora, shake
from support.runs import StopAfter, Stopped, answers, assert_same, make_bench, weights
from support.tasks import classify_task, prompt_task

KINDS = [
    {"rank": 8},
    {"rank": 3, "targets": ["q_proj", "down_proj"]},
    {"rank": 2, "use_rslora": True},
    {"rank": 4, "alpha_pattern": {"q_proj": 3}},
    {"rank": 4, "layers_to_transform": [1]},
]


@pytest.fixture
def library(model, tmp_path: Path) -> Library:
    """Five experts of all kinds, for two slots."""
    library = Library.create(tmp_path / "library", model, rank=8, max_loaded=2)
    for seed, options in enumerate(KINDS):
        lora = make_lora(library.base, seed, **options)
        only = options.get("layers_to_transform")
        tensors = {n: t for n, t in lora.tensors.items() if only is None or f".{only[0]}." in n}
        library.add(Lora(lora.config, tensors), f"number {seed}")
    return library


def by_peft(library: Library, number: int, out: Path) -> torch.Tensor:
    """Return what peft itself makes of an exported expert."""
    folder = export_expert(library, number, out / f"export_{number}")
    with quiet_peft(), torch.no_grad():
        base = AutoModelForCausalLM.from_pretrained(library.base.name)
        return PeftModel.from_pretrained(base, str(folder)).eval()(input_ids=INPUTS).logits


def test_a_loaded_expert_answers_as_peft_lets_it(model, library, tmp_path):
    slots = Slots(model, library)
    wanted = [by_peft(library, number, tmp_path) for number in range(5)]
    own = logits(model)
    for number in (0, 1, 2, 3, 4, 0, 2, 1):  # each slot is filled again by smaller and larger ones
        with slots.answering(number):
            torch.testing.assert_close(logits(model), wanted[number], atol=5e-6, rtol=0)
        assert len(slots.loaded) <= 2
    assert torch.equal(logits(model), own)
    assert len({tuple(answer.flatten().tolist()) for answer in wanted}) == 5


def test_rows_of_several_experts_in_one_batch(model, library):
    slots = Slots(model, library)
    alone = []
    for number in (3, None, 1):
        with slots.answering(number):
            alone.append(logits(model))
    with slots.mixed([3, None, 1]) as names:
        together = logits(model, adapter_names=names)
    for row, answer in enumerate(alone):
        torch.testing.assert_close(together[row], answer[row], atol=1e-5, rtol=1e-5)
    with slots.mixed([1, 1, 3]) as names:
        assert names[0] == names[1] != names[2]


def test_an_error_in_a_mixed_batch_leaves_no_hooks(model, library):
    slots = Slots(model, library)
    own = logits(model)
    with pytest.raises(ValueError, match="adapter_names"), slots.mixed([0, 1]) as names:
        logits(model, adapter_names=names)  # three rows
    assert torch.equal(logits(model), own)


def test_the_least_recently_used_expert_makes_room(model, library):
    slots = Slots(model, library)
    first, second = slots.load(0, 1)
    assert slots.load(0) == [first]
    assert slots.load(2) == [second]
    assert list(slots.loaded) == [0, 2]
    assert slots.load(3, 0) == [second, first]  # one that is wanted too is never thrown out
    with pytest.raises(ConfigError, match=r"the model has 2 slots to spare\. Got '3 wanted'"):
        slots.load(0, 1, 2)
    slots.unload(0)
    assert list(slots.loaded) == [3]
    with slots.mixed([3]) as names:
        logits(model, adapter_names=names * 3)
    with torch.no_grad(), model.evaluating():
        emptied = model.network(input_ids=INPUTS, adapter_names=[first] * 3).logits
    with slots.answering(None):
        torch.testing.assert_close(emptied, logits(model))


def test_an_expert_that_answers_keeps_its_slot(model, library):
    slots = Slots(model, library)
    slots.load(0, 1)
    with slots.answering(0):
        wanted = logits(model)
        slots.load(2)
        slots.load(3)
        assert list(slots.loaded) == [0, 3]
        assert torch.equal(logits(model), wanted)
        with pytest.raises(ConfigError, match="the model has 1 slots to spare"):
            slots.load(1, 2)
        with slots.composed(2), pytest.raises(ConfigError, match="the model has 0 slots to spare"):
            slots.load(1)


def test_what_is_trained_stays_what_it_was(model, library):
    before = list(model.adapters.trainable()), set(model.adapters.tensors())
    slots = Slots(model, library)
    slots.load(0, 1)
    with slots.answering(0):
        assert not model.adapters.trainable()
    with slots.answering(None):
        pass
    with pytest.raises(ZeroDivisionError), slots.answering(1):
        raise ZeroDivisionError
    assert (list(model.adapters.trainable()), set(model.adapters.tensors())) == before
    assert model.adapters.log[-1][0] == "slots"
    Slots(model, library)
    assert [operation for operation, _ in model.adapters.log].count("slots") == 1


@dataclass
class Keep(Strategy):
    """Keeps an expert for each task, the second forked from the first; the least that a strategy of experts does."""

    name: ClassVar[str] = "keep"
    folder: str

    library_: dict = learned(dict)  # what the library was when the run was saved
    experts_: dict = learned(dict)  # task -> its expert

    def slots(self, run: Run) -> Slots:
        if self._slots is None:
            if Library.is_library(self.folder):
                library = Library.open(self.folder, run.model)
                library.restore(self.library_, forget=True)
            else:
                library = Library.create(self.folder, run.model, rank=4, max_loaded=1)
            self._slots = Slots(run.model, library)
        return self._slots

    def __post_init__(self) -> None:
        self._slots = None

    def adapt_model(self, run: Run, task: Task) -> None:
        self.slots(run).begin(max(self.experts_.values(), default=None), run.seed)
        self.library_ = self.slots(run).library.snapshot()

    def train_data(self, mixture: Mixture, run: Run) -> Mixture:
        self.slots(run)
        return mixture

    def end_task(self, run: Run, task: Task) -> None:
        slots = self.slots(run)
        made = slots.library.add(slots.trained(), task.name, learned=[Learned(task=task.name, n_rows=len(task.train))])
        self.experts_[task.name], self.library_ = made.number, slots.library.snapshot()

    def before_eval(self, run: Run, task: Task) -> None:
        if task.name in self.experts_:
            run.until_scored.enter_context(self.slots(run).answering(self.experts_[task.name]))


@pytest.mark.parametrize("n_steps", [3, 8])  # within the first task; within the second
def test_a_resumed_run_ends_with_the_same_experts(llama, bert, tmp_path, n_steps):
    bench = make_bench("causal_lora", llama, bert)
    whole = bench.learn(bench.run([Keep(str(tmp_path / "whole"))]))
    options = {"folder": tmp_path / "run", "every_steps": 2}
    with pytest.raises(Stopped):
        bench.learn(bench.run([Keep(str(tmp_path / "library"))], listener=StopAfter(n_steps), **options))
    run = bench.learn(bench.run([Keep(str(tmp_path / "library"))], **options))
    assert_same(weights(run), weights(whole))
    first, second = (Library.open(tmp_path / name) for name in ("whole", "library"))
    assert [expert.number for expert in second.experts] == [0, 1]
    for number in (0, 1):
        assert_same(first.lora(number).tensors, second.lora(number).tensors)
    for task in bench.tasks:
        assert torch.equal(answers(run, task), answers(whole, task))
    assert not torch.equal(answers(run, bench.tasks[0]), logits_of_own(run, bench.tasks[0]))


def logits_of_own(run: Run, task: Task) -> torch.Tensor:
    """Return what the LoRA in training answers, not the task's expert."""
    run.strategies[0].experts_ = {}
    return answers(run, task)


def test_begin_goes_on_from_an_expert_and_trained_is_what_came_of_it(model, library):
    slots = Slots(model, library)
    for number in (2, 3):
        with slots.answering(number):
            wanted = logits(model)
        slots.begin(number, seed=0)
        torch.testing.assert_close(logits(model), wanted, atol=1e-5, rtol=1e-5)
    shake(model, 1)
    wanted = logits(model)
    forked = library.add(slots.trained(), "more", origin="forked", parents=[3])
    with slots.answering(forked.number):
        assert torch.equal(logits(model), wanted)
    slots.begin(forked.number, seed=5)
    assert torch.equal(logits(model), wanted)
    slots.begin(None, seed=0)
    with slots.answering(None):
        base = logits(model)
    assert torch.equal(logits(model), base)
    first = slots.trained()
    shake(model, 2)
    slots.begin(None, seed=0)
    assert_same(slots.trained().tensors, first.tensors)


def test_what_begins_smaller_can_grow_into_the_whole_rank(model, library):
    slots = Slots(model, library)
    slots.begin(2, seed=0)  # rank 2, in a LoRA of rank 4
    model.network(input_ids=INPUTS, labels=INPUTS).loss.backward()
    layer = model.network.get_submodule("base_model.model.model.layers.0.self_attn.q_proj")
    assert (layer.lora_B["default"].weight.grad.norm(dim=0) > 0).all()
    assert torch.equal(layer.lora_B["default"].weight[:, 2:], torch.zeros(32, 2))


def test_an_expert_too_large_to_train_on_is_refused(model, library, llama, tmp_path):
    slots = Slots(model, library)
    before = slots.trained()
    with pytest.raises(ConfigError, match=r"expert 0: is larger than the LoRA in training, of rank 4\. Got 8"):
        slots.begin(0, seed=0)
    assert_same(slots.trained().tensors, before.tensors)


def test_an_adapted_expert_is_loaded_anew(model, library):
    slots = Slots(model, library)
    with slots.answering(2):
        before = logits(model)
    library.adapt(2, make_lora(library.base, 77), Learned(task="more"))
    with slots.answering(2):
        assert not torch.equal(logits(model), before)


def test_a_damaged_expert_leaves_the_others_in_their_slots(model, library):
    slots = Slots(model, library)
    slots.load(0, 1)
    path = library.folder(2) / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(StateError, match="expert 2: "):
        slots.load(2)
    assert list(slots.loaded) == [0, 1]


def test_a_merged_expert_answers_like_the_sum(model, library):
    made = library.merge([2, 3], "sum", Merge("cat", (1.0, 0.0)))
    slots = Slots(model, library)
    with slots.answering(2):
        wanted = logits(model)
    with slots.answering(made.number):
        torch.testing.assert_close(logits(model), wanted, atol=1e-4, rtol=1e-4)


def test_composed_experts_are_their_weighted_sum(model, library):
    slots = Slots(model, library)
    slots.load(0, 3)
    numbers, own = [1, 2], logits(model)  # of ranks 3 and 2, on different layers
    answers = []
    with slots.composed(*numbers) as weigh:
        answers.append(logits(model))
        for weights in ((1.0, -0.5), (0.0, 1.0)):
            weigh(weights)
            answers.append(logits(model))
        with pytest.raises(ValueError, match="zip"):
            weigh([1.0])
    assert torch.equal(logits(model), own)
    for answer, weights in zip(answers, ((0.5, 0.5), (1.0, -0.5), (0.0, 1.0)), strict=True):
        made = library.merge(numbers, "sum", Merge("cat", weights))
        with slots.answering(made.number):
            torch.testing.assert_close(logits(model), answer, atol=2e-5, rtol=0)
    with slots.answering(3):
        three = logits(model)
    with pytest.raises(ConfigError, match=r"the slots' rank is 8, and together they need more\. Got 12"):
        slots.composed(0, 3).__enter__()
    with slots.answering(3):
        assert torch.equal(logits(model), three)


def test_arrow_is_what_peft_makes_of_the_same_experts(model, tmp_path):
    library = Library.create(tmp_path / "library", model, rank=4, max_loaded=4)
    for seed in range(4):
        library.add(make_lora(library.base, seed, rank=4), f"number {seed}")
    folders = [str(export_expert(library, number, tmp_path / f"export_{number}")) for number in (0, 1, 3)]
    with quiet_peft(), torch.no_grad():
        base = AutoModelForCausalLM.from_pretrained(library.base.name)
        wanted = create_arrow_model(base, folders, ArrowConfig(top_k=2, rng_seed=0)).eval()(input_ids=INPUTS).logits
    slots = Slots(model, library)
    slots.load(2)  # is in a slot beside them, and no part of it
    own = logits(model)
    with slots.arrow(0, 1, 3):
        torch.testing.assert_close(logits(model), wanted, atol=1e-4, rtol=1e-4)
    assert torch.equal(logits(model), own)
    with slots.answering(1):
        alone = logits(model)
    with slots.arrow(1):
        torch.testing.assert_close(logits(model), alone, atol=1e-5, rtol=0)
    with pytest.raises(ZeroDivisionError), slots.arrow(0, 1):
        raise ZeroDivisionError
    assert torch.equal(logits(model), own)


def test_a_model_of_another_shape_is_refused(library, bert):
    other = load_model(ModelConfig(str(bert)), [classify_task(0)])
    with pytest.raises(ModelError, match="is of another base model"):
        Slots(other, library)


def test_a_model_without_one_lora_is_refused(model, library):
    begin_lora(model.adapters, 0)
    with pytest.raises(ConfigError, match="experts: need a model with one LoRA"):
        Slots(model, library)


@pytest.mark.real_model
@pytest.mark.xdist_group("real_model")
def test_smollm2_answers_by_its_experts(smollm2, tmp_path):
    model = load_model(ModelConfig(smollm2, AdapterConfig(rank=4)), [prompt_task(0)])
    library = Library.create(tmp_path / "library", model, rank=8, max_loaded=2)
    slots, wanted = Slots(model, library), []
    for seed in range(2):
        slots.begin(None, seed)
        shake(model, seed)
        wanted.append(logits(model))
        library.add(slots.trained(), f"number {seed}")
    for number in (0, 1, 0):
        with slots.answering(number):
            torch.testing.assert_close(logits(model), wanted[number], atol=1e-3, rtol=1e-4)
    with slots.mixed([1, 0, 1]) as names:
        together = logits(model, adapter_names=names)
    for row, number in enumerate([1, 0, 1]):
        torch.testing.assert_close(together[row], wanted[number][row], atol=1e-3, rtol=1e-4)
