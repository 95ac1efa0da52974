"""Strategies on TRL's trainers; skipped where TRL isn't installed."""

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig

import everlearn
from everlearn.errors import ConfigError
from everlearn.strategy import Strategy
from support.models import byte_tokenizer
from support.trainers import copies, losses_of, make_model, quick

trl = pytest.importorskip("trl")
pytestmark = pytest.mark.filterwarnings("ignore")  # of TRL's own

SETTINGS = {
    "per_device_train_batch_size": 4, "learning_rate": 0.01, "save_strategy": "no", "report_to": [],
    "lr_scheduler_type": "constant", "disable_tqdm": True, "logging_steps": 1, "use_cpu": True, "bf16": False,
    "dataloader_pin_memory": False, "max_steps": 3, "gradient_checkpointing": False,
}  # fmt: skip


def even(completions, **columns):
    """Reward characters of an even number."""
    return [sum(ord(letter) % 2 == 0 for letter in text) / max(1, len(text)) for text in completions]


def make(kind, cls, model, number, folder, peft_config=None, **changes):
    """Return a TRL trainer of kind SFT, DPO or GRPO on the tiny task of a number."""
    prompts = [f"{'t' * (1 + n % 3)}{number} {n}=" for n in range(12)]
    columns = {
        "SFT": {"prompt": prompts, "completion": [f"{n + number}" for n in range(12)]},
        "DPO": {"prompt": prompts, "chosen": [f"{n + number}" for n in range(12)], "rejected": ["b"] * 12},
        "GRPO": {"prompt": prompts, "number": list(range(12))},
    }[kind]
    options, more = {**SETTINGS, **changes}, {}
    if kind == "GRPO":
        options |= {"num_generations": 2, "max_completion_length": 4, "beta": 0.0}
        more = {"reward_funcs": even}
    if peft_config is not None:
        more["peft_config"] = peft_config
    if "kept" in dir(cls):
        more["task"] = f"task_{number}"
    config = getattr(trl, f"{kind}Config")(output_dir=str(folder), **options)
    return cls(
        model=model, args=config, train_dataset=Dataset.from_dict(columns), processing_class=byte_tokenizer(), **more
    )


@pytest.fixture(autouse=True)
def no_sweeps(monkeypatch):
    quick(monkeypatch)


def learn(kind, cls, model, folder, n_tasks=2, **changes):
    for number in range(n_tasks):
        trainer = make(kind, cls, model, number, folder, **changes)
        trainer.train()
    return trainer


def trainer_class(kind):
    return getattr(trl, f"{kind}Trainer")


class Constant(Strategy):
    """Adds 3 to the loss, through each of its targets."""

    name = "constant"

    def penalty(self, step):
        return 0.0 * step.outputs.logits.sum() + 3.0


@pytest.mark.parametrize("kind", ["SFT", "DPO", "GRPO"])
def test_neutral_settings_are_the_plain_trainer_bit_for_bit(llama, tmp_path, kind):
    continual, plain = make_model(llama), make_model(llama)
    ours = learn(kind, everlearn.continual(trainer_class(kind), [{"name": "ewc", "strength": 0}]), continual, tmp_path)
    theirs = learn(kind, trainer_class(kind), plain, tmp_path)
    assert losses_of(ours) == losses_of(theirs)
    assert all(torch.equal(p, copies(plain)[name]) for name, p in copies(continual).items())
    assert isinstance(ours, trainer_class(kind))


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("kind", ["SFT", "DPO", "GRPO"])
def test_a_penalty_stands_once_in_the_logged_loss(llama, tmp_path, kind, accumulation):
    changes = {"gradient_accumulation_steps": accumulation}
    ours = learn(
        kind, everlearn.continual(trainer_class(kind), [Constant()]), make_model(llama), tmp_path, 1, **changes
    )
    theirs = learn(kind, trainer_class(kind), make_model(llama), tmp_path, 1, **changes)
    expected = [loss + 3 for loss in losses_of(theirs)]
    assert losses_of(ours) == pytest.approx(expected, abs=1e-3)
    assert losses_of(ours, "loss/constant") == pytest.approx([3.0] * 3)


@pytest.mark.parametrize("name", ["ewc", "si", "lwf", "replay", "packnet"])
@pytest.mark.parametrize("kind", ["SFT", "DPO", "GRPO"])
def test_a_method_changes_what_the_second_task_makes_of_the_weights(llama, tmp_path, kind, name):
    strong = {"ewc": {"strength": 1e4}, "si": {"strength": 1e4}, "lwf": {"strength": 10.0}, "replay": {"capacity": 8}}
    cls = everlearn.continual(trainer_class(kind), [{"name": name, **strong.get(name, {})}])
    ours = learn(kind, cls, make_model(llama), tmp_path)
    theirs = learn(kind, trainer_class(kind), make_model(llama), tmp_path)
    assert any(not torch.equal(p, copies(theirs.model)[name]) for name, p in copies(ours.model).items())
    assert ours.kept.run.learned == ["task_0", "task_1"]


def test_packnet_keeps_what_an_old_task_answers_under_grpo(llama, tmp_path):
    cls, model = everlearn.continual(trl.GRPOTrainer, ["packnet"]), make_model(llama)
    ids = torch.tensor([byte_tokenizer()("t0 1=")["input_ids"]])
    logits = []
    for number in range(2):
        trainer = make("GRPO", cls, model, number, tmp_path, weight_decay=0.1)
        trainer.train()
        with torch.no_grad(), trainer.as_task("task_0"):
            logits.append(model.eval()(input_ids=ids).logits)
    assert torch.equal(*logits)


def test_grpo_answers_old_prompts_anew_and_measures_on_its_own_answers(llama, tmp_path):
    asked = []

    class Seeing(trl.GRPOTrainer):
        def _generate_and_score_completions(self, inputs):
            asked.extend(row["prompt"] for row in inputs)
            return super()._generate_and_score_completions(inputs)

    seen = []

    class Measuring(Strategy):
        name = "measuring"

        def end_task(self, run, task):
            seen.append(task.train)

    cls = everlearn.continual(Seeing, [{"name": "replay", "capacity": 8}, Measuring()])
    learn("GRPO", cls, make_model(llama), tmp_path, max_steps=12)
    assert {prompt.lstrip("t")[0] for prompt in asked[: len(asked) // 2]} == {"0"}
    assert {prompt.lstrip("t")[0] for prompt in asked[len(asked) // 2 :]} == {"0", "1"}
    assert set(seen[0][0]) == {"input_ids", "labels"}
    assert all(any(label != -100 for label in row["labels"]) for row in seen[1])


@pytest.mark.parametrize("name", ["ewc", "lwf", "replay"])
def test_a_lora_of_trl_learns_task_after_task(llama, tmp_path, name):
    options = {"capacity": 8} if name == "replay" else {}
    cls = everlearn.continual(trl.SFTTrainer, [{"name": name, **options}])
    lora = LoraConfig(r=4, task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"])
    first = make("SFT", cls, make_model(llama), 0, tmp_path, peft_config=lora)
    first.train()
    make("SFT", cls, first.model, 1, tmp_path).train()
    with pytest.raises(ConfigError, match="its trained weights are not those that task 'task_1' left"):
        make("SFT", cls, make_model(llama), 2, tmp_path, peft_config=lora)


@pytest.mark.parametrize("kind", ["SFT", "GRPO"])
def test_it_resumes_exactly(llama, tmp_path, kind):
    chosen = [{"name": "replay", "capacity": 8}, "si", "lwf"]
    saves = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    cls, base = everlearn.continual(trainer_class(kind), chosen), trainer_class(kind)
    first = learn(kind, cls, make_model(llama), tmp_path / "first", 1)
    first.save_model(tmp_path / "one")
    whole = make(kind, cls, first.model, 1, tmp_path / "second", **saves)
    whole.train()
    again = everlearn.continual(base, chosen, after=tmp_path / "one")
    resumed = make(kind, again, make_model(tmp_path / "one"), 1, tmp_path / "second", **saves)
    resumed.train(resume_from_checkpoint=str(tmp_path / "second" / "checkpoint-2"))
    assert all(torch.equal(p, copies(whole.model)[name]) for name, p in copies(resumed.model).items())
    states = [str(trainer.kept.run.state()["strategies"]) for trainer in (resumed, whole)]
    assert states[0] == states[1]


def test_what_does_not_suit_a_trainer_is_refused(llama, tmp_path):
    for kind in ("DPO", "GRPO"):
        with pytest.raises(ConfigError, match="strategy 'gem': it works on a loss that is a mean over right answers"):
            make(kind, everlearn.continual(trainer_class(kind), ["gem"]), make_model(llama), 0, tmp_path)
    with pytest.raises(ConfigError, match="packing: rows that share a sequence can't be told apart"):
        make("SFT", everlearn.continual(trl.SFTTrainer, ["ewc"]), make_model(llama), 0, tmp_path, packing=True)
    with pytest.raises(ConfigError, match=r"continual: can't carry strategies\. Got 'RewardTrainer'"):
        everlearn.continual(trl.RewardTrainer, ["ewc"])
    renamed = everlearn.continual(trl.GRPOTrainer, [{"name": "replay", "capacity": 8}])
    model = learn("GRPO", renamed, make_model(llama), tmp_path, 1).model
    second = make("GRPO", renamed, model, 1, tmp_path)
    second.train_dataset = second.train_dataset.rename_column("number", "n")
    with pytest.raises(ConfigError, match="train_dataset: old rows have other columns"):
        second.train()
    heavy = everlearn.continual(trl.GRPOTrainer, [{"name": "replay", "capacity": 8, "weight": 2.0}])
    with pytest.raises(ConfigError, match=r"replay\.weight: it works on a loss"):
        make("GRPO", heavy, model, 1, tmp_path)
    measured = everlearn.continual(trl.GRPOTrainer, [{"name": "replay", "capacity": 8, "selection": "loss"}])
    with pytest.raises(ConfigError, match="GRPOTrainer: what a method measures on rows needs answers"):
        learn("GRPO", measured, make_model(llama), tmp_path, 1)
