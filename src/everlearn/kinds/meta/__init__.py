"""Learning to learn from some tasks of a stream, and comparing what a few steps do on the others."""

from everlearn.kinds.meta.recipe import MetaEvaluation, MetaRecipe, load_meta_recipe

__all__ = ["MetaEvaluation", "MetaRecipe", "load_meta_recipe"]
