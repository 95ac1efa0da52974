"""Reinforcement on a cluster: what a recipe says, as a folder that verl trains from."""
