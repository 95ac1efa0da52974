"""Experiments: a grid of recipes, run cell by cell on one machine or many, searched, and analysed together."""

from everlearn.bench.course import bench
from everlearn.bench.grid import Grid, read_grid

__all__ = ["Grid", "bench", "read_grid"]
