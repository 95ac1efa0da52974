"""LoRA training with TRL's `SFTTrainer` in an environment of its own; benchmarks/sft.py hands it its turns.

    python -m venv PLACE
    PLACE/bin/pip install -c constraints.txt torch==2.13.0 transformers peft accelerate datasets "trl==1.16.*"

It trains on the rows of FOLDER/rows.jsonl as they come, from the adapter in FOLDER/adapter. What costs TRL time and
isn't the work is off: logs, checkpoints, bars, gradient checkpointing. Its loss never holds the whole logits anyway.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer, TrainerCallback
from transformers.utils.logging import disable_progress_bar
from trl import SFTConfig, SFTTrainer
from turns import Turns


class Watched(SFTTrainer):
    """Keeps each step's loss, which it doesn't log."""

    losses: list[torch.Tensor]

    def compute_loss(self, *arguments: Any, **options: Any) -> torch.Tensor:
        loss = super().compute_loss(*arguments, **options)
        self.losses.append(loss.detach())
        return loss


class InTurns(TrainerCallback):
    """Takes a step only when it's told to."""

    def __init__(self, turns: Turns):
        self.turns = turns

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.turns.begin()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.turns.step()


def main() -> None:
    """Train."""
    warnings.filterwarnings("ignore")
    disable_progress_bar()
    sys.stdout = sys.stderr  # the trainer prints a summary; standard output is for the turns
    folder = Path(sys.argv[1])
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    torch.set_num_threads(plan["n_threads"])
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    on_gpu, dtype = plan["device"] == "cuda", {"float32": torch.float32, "bfloat16": torch.bfloat16}[plan["dtype"]]
    model = AutoPeftModelForCausalLM.from_pretrained(folder / "adapter", is_trainable=True, dtype=dtype)
    config = SFTConfig(
        output_dir=str(folder / "trl"), max_steps=plan["n_steps"], per_device_train_batch_size=plan["batch_size"],
        learning_rate=plan["learning_rate"], lr_scheduler_type="constant", weight_decay=0.0, max_grad_norm=1.0,
        optim="adamw_torch_fused", bf16=plan["precision"] == "bf16", fp16=False, use_cpu=not on_gpu,
        train_sampling_strategy="sequential", completion_only_loss=True, packing=False, max_length=None,
        gradient_checkpointing=False, logging_strategy="no", save_strategy="no", report_to="none", disable_tqdm=True,
        dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = Watched(
        model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(model.peft_config["default"].base_model_name_or_path),
    )
    trainer.losses = []
    turns = Turns(plan["block"], torch.cuda.synchronize) if on_gpu else Turns(plan["block"])
    trainer.add_callback(InTurns(turns))
    trainer.train()
    memory = {"peak_memory_bytes": torch.cuda.max_memory_allocated()} if on_gpu else {}
    turns.end(losses=[loss.item() for loss in trainer.losses], **memory)


if __name__ == "__main__":
    main()
