"""Reinforcement learning: responses that a model draws, what they are worth, and how that becomes a loss."""
