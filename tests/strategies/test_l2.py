import re
from pathlib import Path

import pytest
import torch

from everlearn.models.lora import lora_layers
from support.runs import make_bench

ROOT = Path(__file__).parents[2]


@pytest.fixture
def plain(llama, bert):
    return make_bench("plain", llama, bert, head="shared")


def moved(bench, strength):
    """Return how far the weights come in the second task."""
    run = bench.run([{"name": "l2", "strength": strength}], optimizer="sgd", learning_rate=0.05, clip=None)
    bench.learn(run, upto=1)
    anchor = run.strategies[0].anchor_
    run.position = 1
    before = {name: p.detach().clone() for name, p in run.model.adapters.trainable().items()}
    assert all(torch.equal(anchor[name], p) for name, p in before.items())
    run.learn(bench.tasks[1])
    return sum((p.detach() - before[name]).square().sum() for name, p in run.model.adapters.trainable().items())


def test_stronger_holds_closer(plain):
    assert moved(plain, 10.0) < 0.3 * moved(plain, 0.0)


def test_beside_a_lora_a_task_it_holds_the_whole_matrix(llama, bert):
    bench, come, sizes = make_bench("causal_lora", llama, bert), [], []
    for strength in (0.0, 0.1, 10.0):
        run = bench.learn(bench.run(["inclora", {"name": "l2", "strength": strength}], optimizer="sgd", clip=None))
        layers = lora_layers(run.model.network).values()
        come.append(sum(layer.get_delta_weight("task_2").square().sum().item() for layer in layers))
        sizes.append(run.strategies[1].state_bytes())
        assert list(run.strategies[1].anchor_) == list(run.model.adapters.trainable())
    assert come[2] < 0.7 * come[0]
    assert come[2] < come[1] < come[0]
    assert len(set(sizes)) == 1


def test_the_page_on_adding_a_method_prints_this_file():
    page = (ROOT / "docs" / "adding-a-method.md").read_text(encoding="utf-8")
    printed = re.search(r"```python\n(.*?)```", page, re.DOTALL).group(1)
    assert printed == (ROOT / "src" / "everlearn" / "strategies" / "l2.py").read_text(encoding="utf-8")
