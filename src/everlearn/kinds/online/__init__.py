"""Learning online: predict, learn, predict again."""

from everlearn.kinds.online.recipe import OnlineRecipe, load_online_recipe

__all__ = ["OnlineRecipe", "load_online_recipe"]
