"""The learning rate where none is given: a rule."""

from everlearn.models.load import Model


def learning_rate_for(model: Model, batch_size: int) -> float:
    return 1e-3
