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
# # Which method keeps most?
#
# Several methods learn the same three tasks, from several seeds. A difference between two methods is paired: the same
# seeds, the same evaluation rows. `SMALL=1` in the environment makes it a trial of seconds.
#
# The tasks are small and made from templates, and the encoder is tiny: what is best here needn't be on your data.
# `everlearn advise` tries methods on your own ([more](../docs/advise.md)); what was measured on real models stands in
# [results](../docs/results.md).

# %%
import os
import sys
import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from everlearn import ContinualTrainer
from everlearn.evaluation.stats import mean_interval, paired_t_p

sys.path.insert(0, str(Path("..") / "examples"))
from made import TOPICS, tiny_encoder, topics

warnings.formatwarning = lambda message, *_: f"{message}\n"  # notes, without the line of code that tells them
small = os.environ.get("SMALL") == "1"
n_rows, n_eval, epochs, seeds = (40, 20, 1, range(2)) if small else (400, 160, 12, range(4))
methods = {
    "plain": [],
    "EWC": [{"name": "ewc", "strength": 100}],
    "PackNet": [{"name": "packnet", "prune_fraction": 0.6}],
    "replay": [{"name": "replay", "fraction": 0.1}],
}

# %% [markdown]
# Each seed draws its own rows, first weights of heads, and order of rows; all methods get the same.


# %%
def learn(model, strategies, rows, seed):
    """Teach all tasks; return average accuracy, backward transfer and the accuracy when learned."""
    trainer = ContinualTrainer(model, strategies, {"epochs": epochs, "learning_rate": 0.001}, seed=seed)
    for task, made in rows.items():
        trainer.train_task(task, train=made[n_eval:], evaluate=made[:n_eval])
    found = trainer.metrics()
    return {name: found[name].value for name in ("average_accuracy", "backward_transfer", "learning_accuracy")}


records = []
for seed in seeds:
    rows = {task: topics(task, n_rows, seed) for task in TOPICS}
    with tempfile.TemporaryDirectory() as folder:
        model = tiny_encoder([row["text"] for task in rows.values() for row in task], folder)
        for method, strategies in methods.items():
            records.append({"method": method, "seed": seed, **learn(model, strategies, rows, seed)})
results = pd.DataFrame(records)

# %% [markdown]
# ## The table
#
# Means with 95% intervals over seeds (Student's). With few seeds they are wide, as they should be.

# %%
METRICS = ("average_accuracy", "backward_transfer", "learning_accuracy")


def cell(values):
    """Return a mean with its interval as text."""
    one = mean_interval(list(values))
    return f"{one.value:.3f} " + (f"[{one.low:.3f}, {one.high:.3f}]" if one.low < one.high else "in every seed")


table = results.groupby("method", sort=False)[list(METRICS)].agg(cell)
print(table.to_string())

# %% [markdown]
# ## Compared with plain training
#
# The same seeds, so that the difference of a seed counts. With three methods beside plain training, a p-value is
# multiplied by the number of methods not yet decided (Holm 1979).

# %%
scores = results.pivot(index="seed", columns="method", values="average_accuracy")
differences = {name: (scores[name] - scores["plain"]).tolist() for name in methods if name != "plain"}
p_values = sorted((paired_t_p(values), name) for name, values in differences.items())
highest = 0.0
for rank, (p, name) in enumerate(p_values):
    highest = max(highest, min(1.0, p * (len(p_values) - rank)))
    print(f"{name:10} {cell(differences[name])}  p after correction {highest:.3f}")

# %% [markdown]
# ## What is learned, what is kept
#
# A method can keep all and learn nothing new. Right is better at learning, up is better at keeping.

# %%
figure, panel = plt.subplots(figsize=(6.5, 4), layout="constrained")
for method in methods:
    of_it = results[results.method == method]
    x, y = (mean_interval(of_it[name].tolist()) for name in ("learning_accuracy", "backward_transfer"))
    bars = {"xerr": [[x.value - x.low], [x.high - x.value]], "yerr": [[y.value - y.low], [y.high - y.value]]}
    panel.errorbar(x.value, y.value, **bars, fmt="o", capsize=3, label=method)
panel.axhline(0, color="grey", linewidth=0.8)
panel.set(xlabel="accuracy when learned", ylabel="backward transfer")
panel.legend(fontsize=8)
plt.show()
