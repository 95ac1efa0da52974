# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Lifelong learning: the basics
#
# A model that is trained on one task after another forgets. Here a small encoder learns three text classification
# tasks; we watch it forget, count what was lost, and keep it with two methods. The rows come from templates, the
# encoder knows nothing before: all runs in a minute on one core. `SMALL=1` in the environment makes it a trial of
# seconds.

# %%
import os
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from everlearn import ContinualTrainer

sys.path.insert(0, str(Path("..") / "examples"))
from made import TOPICS, tiny_encoder, topics

small = os.environ.get("SMALL") == "1"
n_rows, n_eval, epochs = (40, 20, 1) if small else (400, 160, 12)
rows = {task: topics(task, n_rows) for task in TOPICS}
for task in rows:
    print(task, rows[task][0])

# %% [markdown]
# ## One task after another
#
# `train_task` learns a task and scores all tasks so far. Each has a head of its own; the encoder below is shared, and
# that is where tasks disturb each other. We keep the scores after each task: row t of the matrix is what is known
# after task t.

# %%
folder = tempfile.TemporaryDirectory()
model = tiny_encoder([row["text"] for task in rows.values() for row in task], folder.name)
learner = {"epochs": epochs, "learning_rate": 0.001}


def learn(strategies):
    """Teach all tasks; return the trainer, and the accuracy on each task [task] after each task [task, task]."""
    trainer = ContinualTrainer(model, strategies, learner)
    matrix = np.full((len(rows), len(rows)), np.nan)
    for after, (task, made) in enumerate(rows.items()):
        trainer.train_task(task, train=made[n_eval:], evaluate=made[:n_eval])
        scores = trainer.evaluate_all_tasks()
        matrix[after, : len(scores)] = [score.value for score in scores.values()]
    return trainer, matrix


plain, matrix = learn([])
print(plain.evaluate_all_tasks())

# %% [markdown]
# "When learned" is the diagonal of the matrix, "now" its last row. What lies between them is forgotten.
#
# ## What was lost, as numbers
#
# With $R_{t,i}$ the score on task $i$ after task $t$, of $T$ tasks:
#
# - average accuracy: $\frac{1}{T}\sum_i R_{T,i}$
# - backward transfer: $\frac{1}{T-1}\sum_{i<T} R_{T,i} - R_{i,i}$, below 0 where tasks are forgotten
# - forgetting: $\frac{1}{T-1}\sum_{i<T} \max_{t<T} R_{t,i} - R_{T,i}$
#
# `metrics()` gives the same numbers, with 95% intervals over the evaluation rows.

# %%
earlier = slice(0, -1)
by_hand = {
    "average_accuracy": matrix[-1].mean(),
    "backward_transfer": (matrix[-1] - matrix.diagonal())[earlier].mean(),
    "forgetting": (np.nanmax(matrix[:-1], axis=0, initial=0) - matrix[-1])[earlier].mean(),
}
for name, value in by_hand.items():
    assert np.isclose(value, plain.metrics()[name].value)
print(plain.metrics())

# %% [markdown]
# ## Two ways to keep it
#
# **Replay** keeps some rows of each task, here a tenth, and mixes them into later batches. **EWC** keeps no rows: it
# holds the weights that earlier tasks rely on ([how](02_ewc_implementation.ipynb)). The two stand side by side as
# well.

# %%
methods = {
    "plain": [],
    "EWC": [{"name": "ewc", "strength": 100}],
    "replay": [{"name": "replay", "fraction": 0.1}],
    "replay + EWC": [{"name": "replay", "fraction": 0.1}, {"name": "ewc", "strength": 100}],
}
learned = {"plain": (plain, matrix)} | {name: learn(one) for name, one in methods.items() if name != "plain"}

figure, panels = plt.subplots(1, len(learned), figsize=(11, 3.2), layout="constrained")
for panel, (name, (_, scores)) in zip(panels, learned.items(), strict=True):
    panel.imshow(scores, vmin=0.3, vmax=1, cmap="viridis")
    for after, task in zip(*np.tril_indices(len(rows)), strict=True):
        value = scores[after, task]
        panel.text(task, after, f"{value:.2f}", ha="center", va="center", color="black" if value > 0.7 else "white")
    panel.set(title=name, xticks=range(len(rows)), yticks=range(len(rows)), xlabel="accuracy on")
    panel.set_xticklabels(rows)
    panel.set_yticklabels(rows if panel is panels[0] else [])
panels[0].set_ylabel("after")
plt.show()

# %%
for name, (trainer, _) in learned.items():
    found = trainer.metrics()
    for metric in ("average_accuracy", "backward_transfer"):
        one = found[metric]
        print(f"{name:12} {metric:17} {one.value:+.3f}  [{one.low:+.3f}, {one.high:+.3f}]")

# %% [markdown]
# ## Ask it
#
# Each task has a head of its own, so that a question says which task it belongs to.

# %%
trainer, _ = learned["replay + EWC"]
print(trainer.predict(["my invoice and a refund please"], task="letters"))
print(trainer.predict(["thunder and lightning again"], task="weather"))

# %% [markdown]
# ## Keep it and go on
#
# What was loaded goes on as what was saved would have, bit for bit.

# %%
trainer.save(Path(folder.name) / "trainer")
later = ContinualTrainer.load(Path(folder.name) / "trainer")
question = ["thunder and lightning again"]
assert later.predict(question, task="weather") == trainer.predict(question, task="weather")
folder.cleanup()
