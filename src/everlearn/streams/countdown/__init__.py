"""Countdown: reach a target from given numbers. Problems by operator group, a verifier, rewards, an exact solver."""
