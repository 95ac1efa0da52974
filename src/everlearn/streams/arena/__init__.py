"""The reasoning arena: types of small problems with one right answer each, endless and seeded."""

from everlearn.streams.arena.generate import ADVANCED_TYPES, TYPES, distinct_problems, generate_batch, problem_at
from everlearn.streams.arena.problem import Problem, verify
from everlearn.streams.arena.stream import ArenaStream

__all__ = [
    "ADVANCED_TYPES",
    "TYPES",
    "ArenaStream",
    "Problem",
    "distinct_problems",
    "generate_batch",
    "problem_at",
    "verify",
]
