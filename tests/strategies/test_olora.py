import pytest
import torch

from everlearn.models.lora import PAST, lora_layers
from everlearn.strategies.olora import orthogonality_gradient
from everlearn.types import Step
from support.runs import assert_same, make_bench, weights


@pytest.fixture
def bench(llama, bert):
    return make_bench("causal_lora", llama, bert)


def overlap(run):
    """Return sum over layers of ||A_earlier A_new^T||_F^2, layer by layer."""
    layers = lora_layers(run.model.network).values()
    return sum((layer.lora_A[PAST].weight @ layer.lora_A["task_2"].weight.T).square().sum() for layer in layers)


def test_the_gradient_is_that_of_the_paper_s_sum_of_squares():
    torch.manual_seed(0)
    earlier = [torch.randn(4, 9) for _ in range(3)]
    new = torch.randn(2, 9, requires_grad=True)
    loss = sum((new @ one.T)[j, k] ** 2 for one in earlier for j in range(2) for k in range(4))
    (wanted,) = torch.autograd.grad(loss, new)
    torch.testing.assert_close(orthogonality_gradient(torch.cat(earlier), new.detach()), wanted)


def test_a_step_s_gradients_are_those_of_both_terms_over_all_layers(bench):
    fields = {"strength": 0.7, "norm_strength": 0.3}
    run = bench.learn(bench.run([{"name": "olora", **fields}]))
    step = Step(run, bench.tasks[1], run.model.adapters.trainable())
    params = step.params
    norms = sum(p.norm() for p in params.values())
    wanted = torch.autograd.grad(0.7 * overlap(run) + 0.3 * norms, list(params.values()))
    for p in params.values():
        p.grad = torch.ones_like(p)
    run.strategies[0].edit_grads(step)
    assert len(params) == 28
    for p, gradient in zip(params.values(), wanted, strict=True):
        torch.testing.assert_close(p.grad, gradient + 1, rtol=1e-4, atol=1e-5)


def test_without_its_terms_it_is_incremental_lora(bench):
    first = weights(bench.learn(bench.run([{"name": "olora", "strength": 0.0}])))
    assert_same(first, weights(bench.learn(bench.run(["inclora"]))))


def test_the_norm_has_no_gradient_where_b_is_zero(bench):
    run = bench.learn(bench.run([{"name": "olora", "norm_strength": 0.1}], optimizer="sgd", epochs=1))
    assert all(torch.isfinite(tensor).all() for tensor in weights(run).values())


def test_stronger_is_more_orthogonal(bench):
    found = [overlap(bench.learn(bench.run([{"name": "olora", "strength": s}]))).item() for s in (0.0, 10.0)]
    assert found[1] < 0.2 * found[0]
