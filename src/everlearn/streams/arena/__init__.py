"""The reasoning arena: types of small problems with one right answer each, endless and seeded, and curricula."""

from everlearn.streams.arena.curriculum import Curriculum, generate_curriculum
from everlearn.streams.arena.generate import ADVANCED_TYPES, TYPES, distinct_problems, generate_batch, problem_at
from everlearn.streams.arena.problem import Problem, verify
from everlearn.streams.arena.stream import ArenaStream

__all__ = [
    "ADVANCED_TYPES",
    "TYPES",
    "ArenaStream",
    "Curriculum",
    "Problem",
    "distinct_problems",
    "generate_batch",
    "generate_curriculum",
    "problem_at",
    "verify",
]
