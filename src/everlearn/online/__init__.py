"""Learning online: predict, learn, predict again."""

from everlearn.online.recipe import OnlineRecipe, load_online_recipe
from everlearn.online.runs import is_online, resume_online, run_online

__all__ = ["OnlineRecipe", "is_online", "load_online_recipe", "resume_online", "run_online"]
