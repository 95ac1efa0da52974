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
# # Elastic weight consolidation, from nothing
#
# EWC (Kirkpatrick et al. 2017) holds each weight where an earlier task left it, as strongly as that task relies on it:
#
# $$L(w) = L_B(w) + \frac{\lambda}{2} \sum_i F_i \, (w_i - w^*_i)^2$$
#
# $w^*$ are the weights after task A, $F$ is the diagonal of its Fisher information. We write both in plain PyTorch,
# watch what they do in two dimensions, and check every number against everlearn's own.

# %%
import copy
import os

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from everlearn import ContinualTrainer
from everlearn.functional.fisher import sum_of_squared_gradients
from everlearn.functional.quadratic import add_anchored_gradients
from everlearn.types import Outputs

small = os.environ.get("SMALL") == "1"
n_rows, n_steps = (40, 30) if small else (200, 100)

# %% [markdown]
# ## Two tasks
#
# Points on the left are class 1 where they lie above, points on the right where they lie below. A network can do both;
# one that learns the right side after the left one forgets.


# %%
def points(centre, above, seed):
    """Return n_rows points around (centre, 0) [n_rows, 2] and their classes [n_rows]."""
    x = torch.randn(n_rows, 2, generator=torch.Generator().manual_seed(seed))
    y = (x[:, 1] > 0).long()
    return x + torch.tensor([centre, 0.0]), y if above else 1 - y


def make_network():
    """Return a network of 2 inputs, 64 hidden units and 2 classes."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 2))


def accuracy(network, x, y):
    """Return the share of points whose class is right."""
    return (network(x).argmax(1) == y).float().mean().item()


tasks = {"A": points(-3.0, True, 1), "B": points(3.0, False, 2)}


def train(network, task, penalty=lambda network: 0.0):
    """Take n_steps steps on a task; return the accuracy on A and on B after each."""
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    history = []
    for _ in range(n_steps):
        optimizer.zero_grad()
        (functional.cross_entropy(network(task[0]), task[1]) + penalty(network)).backward()
        optimizer.step()
        history.append([accuracy(network, *one) for one in tasks.values()])
    return history


network = make_network()
history_a = train(network, tasks["A"])
print("after A: {:.2f} on A, {:.2f} on B".format(*history_a[-1]))

# %% [markdown]
# ## The Fisher information
#
# $$F_i = \frac{1}{n} \sum_x \sum_c p(c|x) \left( \frac{\partial \log p(c|x)}{\partial w_i} \right)^2$$
#
# For each point and each class: the gradient of that class's log-probability, squared, weighted by how likely the
# model itself holds the class. No label is asked for.


# %%
def fisher_of(network, x):
    """Return {parameter name: diagonal of the Fisher}, exactly: a backward pass for each point and class."""
    sums = {name: torch.zeros_like(weights) for name, weights in network.named_parameters()}
    for row in x:
        log_p = functional.log_softmax(network(row), dim=0)
        for one in log_p:
            gradients = torch.autograd.grad(one, list(network.parameters()), retain_graph=True)
            for total, gradient in zip(sums.values(), gradients, strict=True):
                total += one.exp().detach() * gradient**2
    return {name: total / len(x) for name, total in sums.items()}


fisher = fisher_of(network, tasks["A"][0])
anchors = {name: weights.detach().clone() for name, weights in network.named_parameters()}

# %% [markdown]
# The engine's own, at whatever batch size, is the same.


# %%
def forward(batch):
    """Return the network's outputs as everlearn has them: logits, targets, and which row each belongs to."""
    logits = network(batch["x"])
    return Outputs(logits, batch["y"], torch.arange(len(logits)))


x, y = tasks["A"]
for batch_size in (1, 7, n_rows):
    batches = [{"x": x[i : i + batch_size], "y": y[i : i + batch_size]} for i in range(0, n_rows, batch_size)]
    sums, n = sum_of_squared_gradients(network, dict(network.named_parameters()), batches, forward, "exact")
    for name in fisher:
        torch.testing.assert_close(sums[name] / n, fisher[name], rtol=1e-4, atol=1e-9)
print("equal at batch sizes 1, 7 and", n_rows)

# %% [markdown]
# A mistake that is often made: to square the gradient of a batch's mean loss. Gradients of different points cancel out
# before they are squared, so that the sum depends on the batch size, and shrinks with it.

# %%
for batch_size in (1, 10, n_rows):
    squares = []
    for i in range(0, n_rows, batch_size):
        loss = functional.cross_entropy(network(x[i : i + batch_size]), y[i : i + batch_size])
        squares.append(sum(g.pow(2).sum() for g in torch.autograd.grad(loss, list(network.parameters()))))
    print(f"squared gradient of the mean over {batch_size:3} rows: {torch.stack(squares).mean():.5f}")
print(f"the Fisher, summed over weights: {sum(one.sum() for one in fisher.values()):.5f}")

# %% [markdown]
# Few weights matter. Left: the Fisher of each hidden unit's incoming weights; right: all weights, the largest first.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained", width_ratios=[2, 1])
shown = left.imshow(torch.cat([fisher["0.weight"], fisher["0.bias"][:, None]], 1).T, aspect="auto", cmap="magma")
left.set(yticks=range(3), xlabel="hidden unit", title="Fisher of the first layer")
left.set_yticklabels(["from x", "from y", "bias"])
figure.colorbar(shown, ax=left)
ordered = torch.cat([one.flatten() for one in fisher.values()]).sort(descending=True).values
right.plot((ordered.cumsum(0) / ordered.sum()).numpy())
right.set(xlabel="weights, largest first", title="share of the Fisher", ylim=(0, 1.02))
plt.show()

# %% [markdown]
# ## The penalty
#
# Its gradient is $\lambda F_i (w_i - w^*_i)$. everlearn adds that to the gradients once a step, without a graph; here
# it is beside what autograd makes of the formula, at weights that were moved a little.


# %%
def penalty_of(strength):
    """Return the function network -> strength/2 * sum F (w - w*)^2."""

    def penalty(network):
        moved = {name: weights - anchors[name] for name, weights in network.named_parameters()}
        return strength / 2 * sum((fisher[name] * moved[name] ** 2).sum() for name in moved)

    return penalty


moved = make_network()
parameters = dict(moved.named_parameters())
by_autograd = torch.autograd.grad(penalty_of(100.0)(moved), list(parameters.values()))
moved.zero_grad(set_to_none=False)
for weights in parameters.values():
    weights.grad = torch.zeros_like(weights)
add_anchored_gradients(parameters, anchors, 100.0, fisher)
for expected, weights in zip(by_autograd, parameters.values(), strict=True):
    torch.testing.assert_close(weights.grad, expected)
print("equal")

# %% [markdown]
# ## With and without it

# %%
after_a = copy.deepcopy(network.state_dict())
learned, histories = {}, {}
for strength in (0.0, 100.0):
    network = make_network()
    network.load_state_dict(after_a)
    histories[strength] = train(network, tasks["B"], penalty_of(strength))
    learned[strength] = network

figure, panels = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained", sharey=True)
across, up = torch.linspace(-7, 7, 140), torch.linspace(-3, 3, 60)
grid = torch.cartesian_prod(across, up)
first = make_network()
first.load_state_dict(after_a)
shown = {"after A": first, "after B, plain": learned[0.0], "after B, with EWC": learned[100.0]}
for panel, (title, one) in zip(panels, shown.items(), strict=True):
    regions = one(grid).argmax(1).view(len(across), len(up)).T
    panel.contourf(across, up, regions, levels=(-0.5, 0.5, 1.5), cmap="RdBu", alpha=0.4)
    for x, y in tasks.values():
        panel.scatter(*x.T, c=y, cmap="RdBu", s=8, edgecolors="black", linewidths=0.3)
    panel.set_title(f"{title}: A {accuracy(one, *tasks['A']):.2f}, B {accuracy(one, *tasks['B']):.2f}", fontsize=10)
plt.show()

# %%
figure, panels = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained", sharey=True)
for panel, strength in zip(panels, histories, strict=True):
    curves = torch.tensor(history_a + histories[strength])
    for number, task in enumerate(tasks):
        panel.plot(curves[:, number], label=f"accuracy on {task}")
    panel.axvline(n_steps, color="grey", linestyle=":")
    panel.set(title="plain" if strength == 0 else f"EWC, strength {strength:g}", xlabel="step", ylim=(0, 1.02))
panels[0].legend(loc="center left")
plt.show()

# %% [markdown]
# ## How strong?
#
# Too weak, and A is forgotten. Too strong there is not here: the hidden units that A has no use for have a Fisher of 0,
# and stay free for B. Where two tasks need the same weights, a large strength keeps the second from being learned.

# %%
for strength in (0, 1, 10, 100, 10_000, 1_000_000):
    network = make_network()
    network.load_state_dict(after_a)
    on_a, on_b = train(network, tasks["B"], penalty_of(strength))[-1]
    print(f"strength {strength:7}: A {on_a:.2f}, B {on_b:.2f}")

# %% [markdown]
# ## The same with everlearn
#
# The strategy `ewc` computes the Fisher after each task and adds the gradient to each step. What it keeps after task
# A is what our function finds at its weights.

# %%
network = make_network()
trainer = ContinualTrainer(
    network, [{"name": "ewc", "strength": 100.0, "fisher": "exact"}], {"epochs": n_steps // 4, "learning_rate": 0.01}
)
for name, (x, y) in tasks.items():
    held_out = TensorDataset(*points(-3.0 if name == "A" else 3.0, name == "A", 10))
    loader = DataLoader(TensorDataset(x, y), batch_size=n_rows // 4, shuffle=True)
    trainer.train_task(name, train_loader=loader, val_loader=DataLoader(held_out, batch_size=n_rows))
    if name == "A":
        (ewc,) = trainer.run.strategies
        kept = {weights: ewc.precision_[weights].clone() for weights in ewc.precision_}
        for weights, expected in fisher_of(network, x).items():
            torch.testing.assert_close(kept[weights], expected, rtol=1e-4, atol=1e-9)
print(trainer.evaluate_all_tasks())
