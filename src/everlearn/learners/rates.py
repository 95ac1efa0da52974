"""The learning rate where none is given: a rule in what is trained, the model's width and the rows of a step."""

from everlearn.models.adapters import is_peft
from everlearn.models.load import Model

PLAIN = 1e-3  # modules that aren't transformers
PROMPT = 0.15  # a soft prompt or prefix alone
LORA = 5e-4  # at width 2000
FULL_SHARE = 0.1  # of a LoRA's rate, where all weights are trained
POWERS = {"qwen": 0.0775}  # of 2000 / width, by the beginning of the architecture's name
POWER = 0.781  # of Llama; the others are taken for its like
ENOUGH_ROWS = 32  # in a step; with fewer the rate falls with the root of their number


def learning_rate_for(model: Model, batch_size: int) -> float:
    """Return the rate to train a model at with Adam.

    Times √min(1, batch / 32): 5e-4 · (2000 / width)^p for a LoRA, a tenth of it for all weights, 0.15 for a soft prompt
    or prefix alone. 1e-3 for plain modules, whatever the batch.

    Args:
        batch_size: rows of the task in an optimizer step.
    Source: 5e-4, the tenth, the width and p (0.781 for Llama, 0.0775 for Qwen): Schulman et al. 2025, LoRA Without
        Regret, and the hyperparameters of its cookbook, fitted on larger models and batches. The root: Malladi et al.
        2022, arXiv 2205.10287, for Adam. Where it ends (32 rows), 0.15 and 1e-3 are ours.
    Measured: of the gain in held-out loss at the best rate of a sweep (widths 64 to 576, 1 to 32 rows, one seed) it
        reaches 0.94 to 1.00 with LoRA, 0.84 to 0.98 with all weights, 0.98 with prompts (one
        model); docs/learning-rate.md.
    """
    if model.kind == "tensor":
        return PLAIN
    trained, few = _trained(model), min(1.0, batch_size / ENOUGH_ROWS) ** 0.5
    if trained == "prompt":
        return PROMPT * few
    text = model.network.config.get_text_config()
    power = next((p for name, p in POWERS.items() if text.model_type.startswith(name)), POWER)
    lora = LORA * (2000 / text.hidden_size) ** power * few
    return lora if trained == "lora" else lora * FULL_SHARE


def _trained(model: Model) -> str:
    """Return lora, prompt or full; the caller's own peft adapter counts as the one of the first two that it is like."""
    if model.adapters.mode != "full" or not is_peft(model.network):
        return model.adapters.mode
    return "prompt" if model.network.active_peft_config.is_prompt_learning else "lora"
