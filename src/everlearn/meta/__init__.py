"""`everlearn meta`: learn to learn from some tasks of a stream, and compare what a few steps do on the others."""

from everlearn.meta.recipe import MetaEvaluation, MetaRecipe, load_meta_recipe
from everlearn.meta.runs import is_meta_run, resume_meta, run_meta

__all__ = ["MetaEvaluation", "MetaRecipe", "is_meta_run", "load_meta_recipe", "resume_meta", "run_meta"]
