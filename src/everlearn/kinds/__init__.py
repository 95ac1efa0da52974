"""Kinds of run beside the plain one of `everlearn.runs`: a folder each, with one `@register("run", NAME)` class."""
