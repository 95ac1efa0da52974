"""Answers drawn and learned from by TRL's `GRPOTrainer`, in an environment of its own; benchmarks/rollout.py hands out
its turns, and benchmarks/sft_worker.py says how the environment is made.

    PYTHON rollout_worker.py FOLDER draw|learn float32|bfloat16 SIDE

draw: its `_generate_single_turn` answers FOLDER's prompts. learn: its loss of FOLDER's answers (loss_type dapo: a mean
over tokens), backward, and an optimizer step at a rate that leaves the weights alone. float32: all in it, as ours;
bfloat16: weights in it while drawing, autocast while learning. What costs time and isn't the work is off.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.nn.utils import clip_grad_norm_
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar
from trl import GRPOConfig, GRPOTrainer
from turns import Turns

ROWS = 128  # in a forward pass while learning


def trainer_of(folder: Path, plan: dict[str, Any], work: str, dtype: str) -> GRPOTrainer:
    """Return a trainer that is ready to draw or to learn."""
    in_bfloat16 = dtype == "bfloat16"
    weights = torch.bfloat16 if in_bfloat16 and work == "draw" else torch.float32
    config = GRPOConfig(
        output_dir=str(folder / "trl"), per_device_train_batch_size=plan["n_samples"],
        num_generations=plan["n_samples"], max_completion_length=plan["room"], temperature=1.0, top_k=0, top_p=1.0,
        beta=0.0, loss_type="dapo", epsilon=0.2, learning_rate=plan["learning_rate"], weight_decay=0.0,
        optim="adamw_torch_fused", bf16=in_bfloat16 and work == "learn", fp16=False, use_cpu=True,
        gradient_checkpointing=False, logging_strategy="no", save_strategy="no", report_to="none", disable_tqdm=True,
        dataloader_pin_memory=False,
    )  # fmt: skip
    return GRPOTrainer(
        AutoModelForCausalLM.from_pretrained(plan["model"], dtype=weights),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=config,
        train_dataset=Dataset.from_list([{"prompt": "none of these is used"}]),
        processing_class=AutoTokenizer.from_pretrained(plan["model"]),
    )


def draw(trainer: GRPOTrainer, folder: Path, plan: dict[str, Any]) -> None:
    """Answer the prompts again and again."""
    prompts = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))
    repeated = [prompt for prompt in prompts for _ in range(plan["n_samples"])]
    torch.manual_seed(0)
    turns, n_tokens = Turns(1), []
    turns.begin()
    for _ in range(plan["n_turns"]):
        answers, _ = trainer._generate_single_turn(repeated, None, {}, plan["n_samples"])
        n_tokens.append(sum(map(len, answers)))
        turns.step()
    turns.end(n_tokens=n_tokens)


def learn(trainer: GRPOTrainer, folder: Path, plan: dict[str, Any], side: str) -> None:
    """Learn from the same answers again and again."""
    rows = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    device, pad = trainer.accelerator.device, trainer.processing_class.pad_token_id
    n_tokens = torch.tensor(sum(len(row["answer"]) for row in rows))
    parts = [inputs_of(rows[low : low + ROWS], pad, n_tokens, device) for low in range(0, len(rows), ROWS)]
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = trainer.args.steps_per_generation = 1
    model, parameters = trainer.model.train(), [p for p in trainer.model.parameters() if p.requires_grad]
    turns, norms = Turns(1), []
    turns.begin()
    for _ in range(plan["n_turns"]):
        for inputs in parts:
            trainer.accelerator.backward(trainer.compute_loss(model, inputs))
        norms.append(clip_grad_norm_(parameters, 1.0).item())
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        turns.step()
    torch.save(torch.cat([log_p(trainer, inputs) for inputs in parts]), folder / f"{side}.pt")
    turns.end(gradient_norms=norms)


def inputs_of(rows: list[dict[str, Any]], pad: int, n_tokens: torch.Tensor, device: torch.device) -> dict[str, Any]:
    """Return what the trainer makes of prompts and answers before it learns from them: prompts padded on the left."""
    tensors = {}
    for name, side in (("prompt", "left"), ("answer", "right")):
        ids = [torch.tensor(row[name]) for row in rows]
        tensors[name] = pad_sequence(ids, batch_first=True, padding_value=pad, padding_side=side).to(device)
        ones = [torch.ones_like(each) for each in ids]
        tensors[f"{name}_mask"] = pad_sequence(ones, batch_first=True, padding_side=side).to(device)
    return {
        "prompt_ids": tensors["prompt"], "prompt_mask": tensors["prompt_mask"],
        "completion_ids": tensors["answer"], "completion_mask": tensors["answer_mask"],
        "advantages": torch.tensor([row["advantage"] for row in rows], device=device), "num_items_in_batch": n_tokens,
    }  # fmt: skip


@torch.no_grad()
def log_p(trainer: GRPOTrainer, inputs: dict[str, Any]) -> torch.Tensor:
    """Return the log-probabilities of all answers' tokens, one answer after another."""
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    kept = inputs["completion_mask"].bool()
    found, *_ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, kept.shape[1])
    return found[kept].float()


def main() -> None:
    """Take turns."""
    warnings.filterwarnings("ignore")
    disable_progress_bar()
    sys.stdout = sys.stderr  # standard output is for the turns
    folder, (work, dtype, side) = Path(sys.argv[1]), sys.argv[2:]
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    torch.set_num_threads(plan["n_threads"])
    trainer = trainer_of(folder, plan, work, dtype)
    if work == "draw":
        draw(trainer, folder, plan)
    else:
        learn(trainer, folder, plan, side)


if __name__ == "__main__":
    main()
