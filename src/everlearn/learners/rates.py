"""The learning rate where none is given: a rule in what is trained, the model's width and the rows of a step."""

from everlearn.models.load import Model

PLAIN = 1e-3  # modules that aren't transformers
PROMPT = 3e-2  # a soft prompt or prefix alone
LORA = 5e-4  # at width 2000
FULL_SHARE = 0.1  # of a LoRA's rate, where all weights are trained
POWERS = {"qwen": 0.0775}  # of 2000 / width, by the beginning of the architecture's name
POWER = 0.781  # of Llama; the others are taken for its like
ENOUGH_ROWS = 32  # in a step; with fewer the rate falls with the root of their number


def learning_rate_for(model: Model, batch_size: int) -> float:
    """Return the rate to train a model at with Adam.

    5e-4 · (2000 / width)^p · √min(1, batch / 32) for a LoRA, a tenth of it for all weights; 3e-2 for a soft prompt or
    prefix, 1e-3 for plain modules.

    Args:
        batch_size: rows of the task in an optimizer step.
    Source: 5e-4, the width and p: Schulman et al. 2025, LoRA Without Regret, and its cookbook's hyperparameters, fitted
        on larger models. The root: Malladi et al. 2022, arXiv 2205.10287, for Adam.
    """
    if model.kind == "tensor":
        return PLAIN
    if model.adapters.mode == "prompt":
        return PROMPT
    text = model.network.config.get_text_config()
    power = next((p for name, p in POWERS.items() if text.model_type.startswith(name)), POWER)
    lora = LORA * (2000 / text.hidden_size) ** power * min(1.0, batch_size / ENOUGH_ROWS) ** 0.5
    return lora if model.adapters.mode == "lora" else lora * FULL_SHARE
