"""The learning rate where a recipe gives none: a rule in the model's width and the rows of an optimizer step."""

from everlearn.models.load import Model

PLAIN = 1e-3  # modules that aren't transformers
FULL_SHARE = 0.1  # of a LoRA's rate, where all weights of a language model are trained
PROMPT = 3e-2  # soft prompts and prefixes, alone
POWERS = {"qwen": 0.0775}  # of (2000 / width), by the beginning of the model's type
POWER = 0.781
FEW_ROWS = 8  # in a step; with fewer the rate falls with the root of their number


def learning_rate_for(model: Model, batch_size: int) -> float:
    """Return the rate to train a model at, for Adam: 5e-5 · 10 · (2000 / width)^p · √min(1, batch / 8) for a LoRA.

    Args:
        batch_size: rows in an optimizer step.
    Source: Schulman et al. 2025, LoRA Without Regret, and the hyperparameters of its cookbook: p is 0.781 for Llama,
        0.0775 for Qwen.
    """
    config = getattr(model.network, "config", None)
    if model.kind == "tensor" or config is None:
        return PLAIN
    text = config.get_text_config()
    power = next((p for name, p in POWERS.items() if text.model_type.startswith(name)), POWER)
    rate = 5e-5 * 10 * (2000 / text.hidden_size) ** power * min(1.0, batch_size / FEW_ROWS) ** 0.5
    return {"lora": rate, "prompt": PROMPT, "full": rate * FULL_SHARE}[model.adapters.mode]
