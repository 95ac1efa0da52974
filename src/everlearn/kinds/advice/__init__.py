"""Advice before a long training: small paired trials of several methods on the user's own data, in a time budget.

A short trial tells how long rows and items take; from that, all methods get the same rows, items and seed.
"""

from everlearn.kinds.advice.advice import advise, go_on, is_advice
from everlearn.kinds.advice.candidates import content_of
from everlearn.kinds.advice.sizing import parse_budget

__all__ = ["advise", "content_of", "go_on", "is_advice", "parse_budget"]
