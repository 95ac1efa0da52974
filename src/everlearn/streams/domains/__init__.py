"""Streams that have a name: published sequences of tasks, each a table over the one loader of `domain.py`."""
