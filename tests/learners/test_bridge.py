from dataclasses import dataclass

import datasets
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn import functional as F
from torch.utils.data import IterableDataset
from transformers import AutoModelForSequenceClassification, Trainer

import everlearn
from everlearn.errors import ConfigError, EverlearnError, StateError
from everlearn.learners.gradients import reference_gradients
from everlearn.memory.rows import rows_of
from everlearn.models.load import AdapterConfig, ModelConfig
from everlearn.registry import names
from everlearn.strategies.gem import GEM
from everlearn.strategy import Strategy
from support.runs import Bench
from support.tasks import contrary_task, prompt_task
from support.trainers import InOurOrder, copies, losses_of, make_model, make_trainer, options_for, quick, rows_for

TASKS = (prompt_task(0), prompt_task(1))
CONTRARY = (contrary_task(0), contrary_task(1))
METHODS = {
    "ewc": {"name": "ewc", "strength": 500.0},
    "si": {"name": "si", "strength": 50.0},
    "rwalk": {"name": "rwalk", "strength": 50.0},
    "gamma_ewc": {"name": "gamma_ewc", "strength": 500.0},
    "lwf": {"name": "lwf"},
    "replay": {"name": "replay", "capacity": 8, "ratio": 0.5},
    "derpp": {"name": "derpp", "capacity": 8},
    "gem": {"name": "gem", "capacity": 8},
    "packnet": {"name": "packnet"},
}


@pytest.fixture(autouse=True)
def no_sweeps(monkeypatch):
    quick(monkeypatch)


def learn(cls, model, tasks, folder, **options):
    """Let a trainer class learn tasks one after another; return the last trainer."""
    for task in tasks:
        trainer = make_trainer(cls, model, task, folder, **options)
        trainer.train()
    return trainer


def assert_alike(first, second, **tolerance):
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], **tolerance, msg=lambda text, name=name: f"{name}: {text}")


def assert_equal(first, second):
    assert_alike(first, second, rtol=0, atol=0)


@dataclass
class Constant(Strategy):
    """Adds 3 to the loss, through each of its targets."""

    name = "constant"

    def penalty(self, step):
        return 0.0 * step.outputs.logits.sum() + 3.0


@dataclass
class Watching(Strategy):
    """Keeps the gradients that it sees and the weights before and after each step."""

    name = "watching"

    def __post_init__(self):
        self.seen = []

    def edit_grads(self, step):
        norm = torch.stack([p.grad.norm() for p in step.params.values() if p.grad is not None]).norm()
        weights = torch.cat([p.detach().flatten() for p in step.params.values()])
        self.seen.append({"index": step.index, "n_steps": step.n_steps, "norm": norm.item(), "before": weights})

    def after_step(self, step):
        self.seen[-1]["after"] = torch.cat([p.detach().flatten() for p in step.params.values()])


@pytest.mark.parametrize("name", METHODS)
def test_it_learns_what_our_own_learner_learns(llama, tmp_path, name):
    tasks = CONTRARY if name == "gem" else TASKS  # elsewhere it has nothing to do
    bench = Bench("causal_full", ModelConfig(str(llama), AdapterConfig("full")), tasks)
    learned = {}
    for method in (METHODS[name], {"name": "none"}):
        run = bench.learn(bench.run([method], epochs=1))
        trainer = learn(everlearn.continual(InOurOrder, [method]), make_model(llama), tasks, tmp_path)
        learned[method["name"]] = copies(trainer.model)
        assert_alike(copies(trainer.model), copies(run.model.network), rtol=0, atol=1e-6)
    apart = max((p - learned["none"][key]).abs().max().item() for key, p in learned[name].items())
    assert apart > 1e-3


@pytest.mark.parametrize(
    "options",
    ["none", {"name": "ewc", "strength": 0}, {"name": "replay", "capacity": 8, "ratio": 0}],
    ids=("none", "ewc", "replay"),
)
def test_neutral_settings_are_the_plain_trainer_bit_for_bit(llama, tmp_path, options):
    continual, plain = make_model(llama), make_model(llama)
    ours = learn(everlearn.continual(Trainer, [options]), continual, TASKS, tmp_path, num_train_epochs=2)
    theirs = learn(Trainer, plain, TASKS, tmp_path, num_train_epochs=2)
    assert losses_of(ours) == losses_of(theirs)
    assert_equal(copies(continual), copies(plain))


@pytest.mark.parametrize(("size", "accumulation"), [(4, 1), (1, 4), (3, 2)])
def test_a_penalty_stands_once_in_the_logged_loss_and_never_in_the_evaluation(llama, tmp_path, size, accumulation):
    options = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
    ours = make_trainer(everlearn.continual(Trainer, [Constant()]), make_model(llama), TASKS[0], tmp_path, **options)
    theirs = make_trainer(Trainer, make_model(llama), TASKS[0], tmp_path, **options)
    assert ours.evaluate(rows_for(TASKS[1]))["eval_loss"] == theirs.evaluate(rows_for(TASKS[1]))["eval_loss"]
    ours.train()
    theirs.train()
    assert losses_of(ours) == pytest.approx([loss + 3 for loss in losses_of(theirs)], rel=1e-5)
    assert losses_of(ours, "loss/constant") == pytest.approx([3.0] * len(losses_of(ours)))
    assert ours.evaluate(rows_for(TASKS[1]))["eval_loss"] == theirs.evaluate(rows_for(TASKS[1]))["eval_loss"]


@pytest.mark.parametrize("name", ["ewc", "lwf", "replay", "gem", "packnet"])
def test_accumulation_makes_no_difference(llama, tmp_path, name):
    results = []
    for size, accumulation in ((2, 4), (8, 1)):
        sizes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
        cls = everlearn.continual(Trainer, [dict(METHODS[name])])
        trainer = learn(cls, make_model(llama), TASKS, tmp_path, learning_rate=0.002, **sizes)
        results.append((copies(trainer.model), losses_of(trainer)))
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-4)
    assert_alike(results[0][0], results[1][0], rtol=1e-4, atol=2e-5)


def test_gradients_are_edited_once_a_step_before_they_are_clipped(llama, tmp_path):
    watching = Watching()
    cls = everlearn.continual(Trainer, [watching])
    options = {"optim": "sgd", "learning_rate": 1.0, "gradient_accumulation_steps": 2, "num_train_epochs": 2}
    trainer = make_trainer(cls, make_model(llama), TASKS[0], tmp_path, max_grad_norm=0.1, **options)
    trainer.train()
    assert [step["index"] for step in watching.seen] == list(range(4))
    assert {step["n_steps"] for step in watching.seen} == {4}
    for step, logged in zip(watching.seen, losses_of(trainer, "grad_norm"), strict=True):
        assert step["norm"] == pytest.approx(logged, rel=1e-5)  # what was logged is the norm before clipping
        assert step["norm"] > 0.2
        assert (step["after"] - step["before"]).norm().item() == pytest.approx(0.1, rel=1e-3)


def test_gradients_are_edited_once_a_step_where_nothing_is_clipped(llama, tmp_path):
    watching = Watching()
    make_trainer(
        everlearn.continual(Trainer, [watching]), make_model(llama), TASKS[0], tmp_path, max_grad_norm=0.0
    ).train()
    assert [step["index"] for step in watching.seen] == [0, 1, 2]


def test_packnet_leaves_what_an_old_task_answers_bit_for_bit_under_weight_decay(llama, tmp_path):
    model = make_model(llama)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=0.01, weight_decay=0.1
    )  # its momentum goes on to the next task
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    cls = everlearn.continual(Trainer, ["packnet"])
    ids = torch.tensor([rows_for(TASKS[0])[0]["input_ids"]])

    def logits(trainer):
        with torch.no_grad(), trainer.as_task(TASKS[0].name):
            return model.eval()(input_ids=ids).logits

    options = {"optimizers": (optimizer, scheduler), "weight_decay": 0.1, "num_train_epochs": 2}
    before = logits(learn(cls, model, TASKS[:1], tmp_path, **options))
    whole = copies(model)
    second = learn(cls, model, TASKS[1:], tmp_path, **options)
    assert torch.equal(logits(second), before)
    assert any(not torch.equal(p, whole[name]) for name, p in copies(model).items())
    with second.as_task(TASKS[1].name):
        assert not torch.equal(model(input_ids=ids).logits, before)


@dataclass
class AgainstMemory(Strategy):
    """Compares each step's gradient, as it is left, with that of what gem keeps."""

    name = "against_memory"

    def __post_init__(self):
        self.cosines = []

    def edit_grads(self, step):
        memory = step.run.strategies[0].memory_
        if memory:
            objective = step.run.model.objective
            rows = [row for stored in memory.values() for row in rows_of(stored)]
            used = [p for p in step.params.values() if p.grad is not None]
            reference = reference_gradients(step.run, used, [objective.collate(rows)])
            pair = [torch.cat([t.flatten() for t in side]) for side in ([p.grad for p in used], reference)]
            self.cosines.append(F.cosine_similarity(*pair, dim=0).item())


class Keeping(GEM):
    """Keeps rows as gem does and does nothing with them."""

    def edit_grads(self, step):
        pass

    def after_step(self, step):
        pass


def test_gem_leaves_no_gradient_against_the_memory(llama, tmp_path):
    lowest = {}
    for method in (GEM(capacity=8, batch_size=8, protect="gradient"), Keeping(capacity=8)):
        watching = AgainstMemory()
        learn(
            everlearn.continual(Trainer, [method, watching]), make_model(llama), CONTRARY, tmp_path, num_train_epochs=3
        )
        lowest[type(method)] = min(watching.cosines)
    assert lowest[GEM] > -1e-5
    assert lowest[Keeping] < -0.01


@pytest.mark.parametrize("name", ["si", "lwf", "replay", "packnet"])
def test_it_resumes_exactly(llama, tmp_path, name):
    chosen = [dict(METHODS[name])]
    saves = {"save_strategy": "steps", "save_steps": 2, "num_train_epochs": 2}
    cls = everlearn.continual(Trainer, chosen)
    first = learn(cls, make_model(llama), TASKS[:1], tmp_path / "first")
    first.save_model(tmp_path / "one")
    whole = learn(cls, first.model, TASKS[1:], tmp_path / "second", **saves)

    model = type(first.model).from_pretrained(tmp_path / "one")
    again = everlearn.continual(Trainer, chosen, after=tmp_path / "one")
    resumed = make_trainer(again, model, TASKS[1], tmp_path / "second", **saves)
    resumed.train(resume_from_checkpoint=str(tmp_path / "second" / "checkpoint-2"))
    assert losses_of(resumed) == losses_of(whole)
    assert_equal(copies(resumed.model), copies(whole.model))
    states = [trainer.kept.run.state() for trainer in (resumed, whole)]
    assert states[0]["learned"] == states[1]["learned"] == ["add_0", "add_1"]
    assert str(states[0]["strategies"]) == str(states[1]["strategies"])
    assert resumed.kept.weights_sha256 == whole.kept.weights_sha256


def test_a_lora_resumes_exactly(llama, tmp_path):
    chosen = [METHODS["ewc"], METHODS["replay"]]
    saves = {"save_strategy": "steps", "save_steps": 2}
    lora = get_peft_model(make_model(llama), LoraConfig(r=4, task_type="CAUSAL_LM", init_lora_weights=False))
    first = learn(everlearn.continual(Trainer, chosen), lora, TASKS[:1], tmp_path / "first")
    first.save_model(tmp_path / "one")
    whole = learn(type(first), lora, TASKS[1:], tmp_path / "second", **saves)
    for checkpoint in (2, 3):  # 3 is the last step
        model = PeftModel.from_pretrained(make_model(llama), tmp_path / "one", is_trainable=True)
        cls = everlearn.continual(Trainer, chosen, after=tmp_path / "one")
        resumed = make_trainer(cls, model, TASKS[1], tmp_path / "second", **saves)
        resumed.train(resume_from_checkpoint=str(tmp_path / "second" / f"checkpoint-{checkpoint}"))
        assert_equal(copies(resumed.model), copies(whole.model))
        assert str(resumed.kept.run.state()["strategies"]) == str(whole.kept.run.state()["strategies"])


def test_in_bfloat16_a_teacher_begins_as_the_student(llama, tmp_path):
    second = learn(everlearn.continual(Trainer, ["lwf"]), make_model(llama), TASKS, tmp_path, bf16=True)
    penalties = losses_of(second, "loss/lwf")
    assert penalties[0] == pytest.approx(0, abs=1e-6)
    assert min(penalties[1:]) > 1e-3


def test_a_task_may_come_again(llama, tmp_path):
    cls = everlearn.continual(Trainer, [METHODS["replay"], METHODS["si"]])
    trainer = learn(cls, make_model(llama), TASKS, tmp_path)
    trainer.train()
    learn(cls, trainer.model, TASKS[:1], tmp_path)
    assert trainer.kept.run.learned == ["add_0", "add_1", "add_1", "add_0"]
    assert set(trainer.kept.strategies[0].memory_) == {"add_0", "add_1"}


@pytest.mark.parametrize("listed", [False, True])
def test_a_batch_holds_old_rows_beside_the_new_ones(llama, tmp_path, listed):
    sizes = []

    class Seeing(Trainer):
        def compute_loss(self, model, inputs, *args, **options):
            sizes.append(len(inputs["input_ids"]))
            return super().compute_loss(model, inputs, *args, **options)

    cls, model = everlearn.continual(Seeing, [{"name": "replay", "capacity": 6, "ratio": 0.5}]), make_model(llama)
    for task in TASKS:
        trainer = make_trainer(cls, model, task, tmp_path)
        trainer.train_dataset = list(rows_for(task)) if listed else trainer.train_dataset
        trainer.train()
    assert sizes == [4, 4, 4, 6, 6, 6]


def test_every_strategy_learns_or_is_refused_before_training(llama, tmp_path):
    learned, refused = [], {}
    for name in names("strategy"):
        options = {"name": name, "capacity": 8} if name in ("replay", "gdumb") else {"name": name}
        try:
            model = make_model(llama)
            cls = everlearn.continual(Trainer, [options])
            trainer = make_trainer(cls, model, TASKS[0], tmp_path, max_steps=1)
        except EverlearnError as error:
            refused[name] = str(error)
            continue
        trainer.train()
        learn(cls, model, TASKS[1:], tmp_path, max_steps=1)
        learned.append(name)
    assert set(METHODS) | {"agem", "der", "ema", "er_ace", "gpm", "l2", "mas", "merge", "none", "ogd", "osf"} <= {
        *learned
    }
    assert refused["cumulative"].startswith("strategy 'cumulative': it makes rows to train on from those of a task")
    assert all(f"strategy {name!r}" in text for name, text in refused.items())


def test_what_a_trainer_cannot_do_is_refused_in_one_sentence(llama, tmp_path):
    cls = everlearn.continual(Trainer, ["ewc"])
    for options, what in (
        ({"fp16": True}, "fp16: gradients would be edited while they are still scaled"),
        ({"load_best_model_at_end": True, "eval_strategy": "no", "save_strategy": "no"}, "load_best_model_at_end"),
        ({"auto_find_batch_size": True}, "auto_find_batch_size: would begin a task twice"),
    ):
        with pytest.raises(ConfigError, match=what):
            make_trainer(cls, make_model(llama), TASKS[0], tmp_path, **options)

    class Endless(IterableDataset):
        def __iter__(self):
            yield from rows_for(TASKS[0])

    for rows in (Endless(), rows_for(TASKS[0]).to_iterable_dataset()):
        with pytest.raises(ConfigError, match="train_dataset: is a stream, whose rows can't be kept"):
            cls(model=make_model(llama), args=options_for(tmp_path, max_steps=2), train_dataset=rows)
    with pytest.raises(ConfigError, match=r"lwf\.cache_top_k: needs the rows beforehand"):
        make_trainer(
            everlearn.continual(Trainer, [{"name": "lwf", "cache_top_k": 4}]), make_model(llama), TASKS[0], tmp_path
        )
    with pytest.raises(ConfigError, match="continual: can't carry strategies"):
        everlearn.continual(datasets.Dataset, ["ewc"])
    with pytest.raises(ConfigError, match="continual: can't carry strategies"):
        everlearn.continual(cls, ["si"])


def test_a_classifier_is_refused(bert, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(bert)
    with pytest.raises(EverlearnError, match="they need a causal model"):
        make_trainer(everlearn.continual(Trainer, ["ewc"]), model, TASKS[0], tmp_path)


def test_another_model_than_the_last_task_left_is_refused(llama, tmp_path):
    cls = everlearn.continual(Trainer, ["ewc"])
    first = learn(cls, make_model(llama), TASKS[:1], tmp_path)
    with pytest.raises(ConfigError, match="its trained weights are not those that task 'add_0' left"):
        make_trainer(cls, make_model(llama), TASKS[1], tmp_path)
    with pytest.raises(
        ConfigError, match=r"as_task: is no task of this trainer's class. Got 'ad_0'. Did you mean 'add_0'"
    ):
        first.as_task("ad_0").__enter__()


def test_a_folder_without_a_state_is_refused(llama, tmp_path):
    make_trainer(Trainer, make_model(llama), TASKS[0], tmp_path).save_model(tmp_path / "plain")
    with pytest.raises(StateError, match="holds nothing that strategies learned"):
        everlearn.continual(Trainer, ["ewc"], after=tmp_path / "plain")
    trainer = make_trainer(everlearn.continual(Trainer, ["ewc"]), make_model(llama), TASKS[0], tmp_path / "new")
    with pytest.raises(StateError, match="train: there is no checkpoint"):
        trainer.train(resume_from_checkpoint=True)
