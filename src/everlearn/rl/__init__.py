"""Learning by reinforcement: responses that the model samples, what they are worth, and how much better that is."""
