import math

import pytest
import torch

from everlearn.models.lora import PAST, lora_layers
from everlearn.strategies.inflora import InfLoRA, design
from support.runs import make_bench


@pytest.fixture
def bench(llama, bert):
    return make_bench("causal_lora", llama, bert)


def inputs(n, width, rank, seed):
    """Return [n, width] inputs that span `rank` directions, some far more than others."""
    generator = torch.Generator().manual_seed(seed)
    scales = 2.0 ** -torch.arange(rank)
    spread = torch.randn(n, rank, generator=generator, dtype=torch.float64) * scales
    return spread @ torch.randn(rank, width, generator=generator, dtype=torch.float64)


def test_the_design_is_the_singular_vectors_of_the_inputs_outside_of_the_basis():
    first, second = inputs(50, 12, 4, 0), inputs(60, 12, 6, 1)
    basis = torch.linalg.svd(first.T, full_matrices=False).U[:, :4]
    left, _, _ = torch.linalg.svd(second.T - basis @ basis.T @ second.T, full_matrices=False)
    rows = design(second.T @ second, basis, 5)
    torch.testing.assert_close((rows @ left[:, :5]).abs(), torch.eye(5, dtype=torch.float64) / math.sqrt(3))
    assert (rows @ basis).abs().max() < 1e-12
    assert (rows.gather(1, rows.abs().argmax(1, keepdim=True)) > 0).all()


def test_rows_for_which_the_inputs_have_no_direction_are_zero():
    few = inputs(60, 12, 3, 1)
    rows = design(few.T @ few, torch.zeros(12, 0), 5)
    assert (rows[3:] == 0).all()
    torch.testing.assert_close(few @ (3 * rows.T @ rows), few)
    assert design(torch.eye(3, dtype=torch.float64), torch.zeros(3, 0), 5).shape == (5, 3)


def test_the_protected_subspace_holds_the_threshold_of_each_task_s_inputs(bench):
    run = bench.learn(bench.run([{"name": "inflora", "threshold": 0.9}], epochs=1), upto=1)
    strategy = run.strategies[0]
    first = {name: basis.clone() for name, basis in strategy.bases_.items()}
    run.position = 1
    run.learn(bench.tasks[1])
    sums, _ = strategy.moments(run, bench.tasks[1])
    for name, moments in sums.items():
        basis = strategy.bases_[name]
        assert torch.equal(basis[:, : first[name].shape[1]], first[name])
        assert basis.dtype == torch.float32
        held = ((basis.double().T @ moments @ basis.double()).trace() / moments.trace()).item()
        assert held > 0.9 - 1e-6
    assert strategy.state_bytes() < sum(4 * len(m) ** 2 + len(n) for n, m in sums.items()) + 200


def test_what_a_task_learns_does_not_act_on_the_protected_subspace(bench):
    run = bench.learn(bench.run([{"name": "inflora", "threshold": 0.8}], weight_decay=0.1), upto=1)
    bases = {name: basis.clone() for name, basis in run.strategies[0].bases_.items()}
    run.position = 1
    run.learn(bench.tasks[1])
    layers = lora_layers(run.model.network)
    for name, basis in bases.items():
        change = layers[name].get_delta_weight("task_2")
        assert change.abs().max() > 1e-4
        assert (change @ basis).abs().max() < 1e-5 * change.abs().max() + 1e-7
    assert not any("lora_A" in name for name in run.model.adapters.trainable())


def test_only_b_moves_and_the_first_design_is_kept(bench):
    run = bench.run(["inflora"], weight_decay=0.1)
    run.current = bench.tasks[0].name
    run.strategies[0].adapt_model(run, bench.tasks[0])
    layers = lora_layers(run.model.network)
    designed = {name: layer.lora_A["default"].weight.clone() for name, layer in layers.items()}
    again = bench.learn(bench.run(["inflora"], weight_decay=0.1))
    for name, layer in lora_layers(again.model.network).items():
        assert torch.equal(layer.lora_A[PAST].weight, designed[name])
    norms = torch.cat([matrix.norm(dim=1) for matrix in designed.values()])
    torch.testing.assert_close(norms, torch.full_like(norms, 1 / math.sqrt(3)))


def test_layers_with_the_same_input_share_it_and_padding_does_not_count(bench):
    run = bench.run(["inflora"])
    sums, owners = InfLoRA(batch_size=5).moments(run, bench.tasks[0])
    alone, _ = InfLoRA(batch_size=1).moments(run, bench.tasks[0])  # no padding
    prefix = "base_model.model.model.layers.0."
    assert owners[f"{prefix}self_attn.v_proj"] == owners[f"{prefix}self_attn.k_proj"] == f"{prefix}self_attn.q_proj"
    assert owners[f"{prefix}mlp.up_proj"] == f"{prefix}mlp.gate_proj"
    assert len(sums) == 8
    for name, moments in sums.items():
        torch.testing.assert_close(moments, alone[name], rtol=1e-4, atol=1e-4)
