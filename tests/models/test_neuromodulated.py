import torch

from everlearn.models.load import ModelConfig, load_model
from everlearn.models.neuromodulated import Neuromodulated, neuromodulated
from support.tasks import regression_task


def test_the_gate_scales_each_feature():
    body, gate, head = torch.nn.Linear(3, 4), torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    gated = head(body(x) / (1 + torch.exp(-gate(x))))
    torch.testing.assert_close(Neuromodulated(body, gate, head)(x), gated)


def test_a_closed_gate_leaves_no_gradient_to_the_body():
    network = neuromodulated(3, 1, (4,), (4,))
    with torch.no_grad():
        network.gate[-1].weight.zero_()
        network.gate[-1].bias.fill_(-1000.0)
    network(torch.ones(2, 3)).sum().backward()
    assert all(not p.grad.any() for p in network.body.parameters())


def test_a_recipe_builds_it_sized_by_the_data():
    name = "everlearn.models.neuromodulated:neuromodulated"
    model = load_model(ModelConfig(name, options={"hidden": [6, 5], "gate_hidden": [3]}), [regression_task(0)])
    assert [p.shape[0] for p in model.network.parameters() if p.ndim == 2] == [6, 5, 3, 5, 1]
