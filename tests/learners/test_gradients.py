from dataclasses import replace

import pytest
import torch

from everlearn.learners.devices import start_accelerator
from everlearn.learners.gradients import at_loss_scale, reference_gradients
from everlearn.learners.grouped import grouped_gradients
from everlearn.learners.loader import row_batches
from everlearn.memory.scores import row_gradients
from everlearn.models.objectives import item_losses, mean_loss, to_device
from everlearn.types import TensorRows
from support.half import in_half
from support.runs import make_bench
from support.tasks import prompt_task


def test_the_gradient_is_of_the_mean_over_all_targets_however_batched(llama, bert):
    run, task = make_bench("causal_full", llama, bert).run(), prompt_task(0, n_train=7)
    parameters = list(run.model.adapters.trainable().values())

    def found(size):
        return reference_gradients(
            run, parameters, [b for _, b in row_batches(run.model.objective, task.train, task, size)]
        )

    (batch,) = [b for _, b in row_batches(run.model.objective, task.train, task, 7)]
    loss = mean_loss(run.model.objective.forward(run.model.network, batch))
    wanted = torch.autograd.grad(loss, parameters)
    for size in (7, 3, 1):
        for gradient, reference in zip(found(size), wanted, strict=True):
            torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-6)


def test_present_gradients_stay(llama, bert):
    bench = make_bench("plain", llama, bert)
    run = bench.run()
    run.add_labels(bench.tasks[0])
    parameters = list(run.model.adapters.trainable().values())
    kept = [torch.ones_like(p) for p in parameters]
    for p, gradient in zip(parameters, kept, strict=True):
        p.grad = gradient
    batches = [b for _, b in row_batches(run.model.objective, bench.tasks[0].train, bench.tasks[0], 8)]
    gradients = reference_gradients(run, parameters, [*batches, {}])
    assert all(p.grad is gradient for p, gradient in zip(parameters, kept, strict=True))
    assert all(torch.equal(gradient, torch.ones_like(gradient)) for gradient in kept)
    assert any(g is not None and g.abs().sum() > 0 for g in gradients)


def test_rows_that_reach_nothing_trainable_have_no_gradient(llama, bert):
    bench = make_bench("plain", llama, bert)
    run = bench.run()
    run.add_labels(bench.tasks[0])
    parameters = list(run.model.adapters.trainable().values())
    batches = [b for _, b in row_batches(run.model.objective, bench.tasks[0].train, bench.tasks[0], 8)]
    run.model.network.requires_grad_(False)
    assert reference_gradients(run, parameters, batches) == [None] * len(parameters)


def test_on_the_cpu_moving_a_batch_is_free():
    batch = {"x": torch.ones(1)}
    assert to_device(batch, torch.device("cpu")) is batch


def fitted_run(llama, bert):
    """Return a run whose model is so sure of the only class of its rows that gradients are about 1e-8, and the task."""
    bench = make_bench("plain", llama, bert)
    run, task = bench.run(), bench.tasks[0]
    run.add_labels(task)
    rows = TensorRows(task.train.x[:6], torch.zeros_like(task.train.y[:6]))
    with torch.no_grad():
        run.model.network[-1].bias[0] += 18.0
    return run, replace(task, train=rows)


def memory_gradients(run, task, how):
    """Return the gradient of some rows as one of three functions gives it."""
    parameters = run.model.adapters.trainable()
    run.model.network.eval()
    (_, batch) = next(row_batches(run.model.objective, task.train, task, 6))
    if how == "reference":
        return torch.cat([g.flatten() for g in reference_gradients(run, list(parameters.values()), [batch])])
    if how == "grouped":
        return grouped_gradients(run, parameters, batch, [0, 0, 1, 1, 1, 2], 3, item_losses)
    return row_gradients(run, task, task.train)


@pytest.mark.parametrize("how", ["reference", "grouped", "rows"])
def test_small_gradients_survive_fp16(how, llama, bert):
    run, task = fitted_run(llama, bert)
    wanted = memory_gradients(run, task, how)
    assert 0 < wanted.abs().max() < 6e-8  # the smallest number of fp16
    assert not memory_gradients(in_half(run, scaled=False), task, how).any()
    found = memory_gradients(in_half(run), task, how)
    assert found.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(found.flatten(), wanted.flatten(), dim=0) > 0.999
    assert found.norm().item() == pytest.approx(wanted.norm().item(), rel=0.02)


def test_a_scale_leaves_no_trace_and_is_lowered_where_gradients_overflow(llama, bert):
    run, scales = make_bench("plain", llama, bert).run(), []

    def compute(scale):
        scales.append(scale)
        return [torch.tensor([3e4, 1e-9]).mul(scale).half().float(), None]

    assert at_loss_scale(run, compute)[0].tolist() == compute(1.0)[0].tolist()
    scales.clear()
    gradient, nothing = at_loss_scale(in_half(run), compute)
    assert scales == [65536.0, 4096.0, 256.0, 16.0, 1.0]
    assert gradient[0] == pytest.approx(3e4, rel=1e-3)
    assert nothing is None
    scales.clear()
    (exact,) = at_loss_scale(in_half(run), lambda scale: [torch.tensor([1 / 3, 1e-30]) * scale])
    assert exact.tolist() == torch.tensor([1 / 3, 1e-30]).tolist()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_small_gradients_survive_fp16_on_a_gpu(llama, bert):
    run, task = fitted_run(llama, bert)
    wanted = memory_gradients(run, task, "rows")
    run.accelerator = start_accelerator(precision="fp16", device="cuda")
    run.model.network.cuda()
    found = memory_gradients(run, task, "rows")
    start_accelerator(device="cpu")
    assert torch.nn.functional.cosine_similarity(found.flatten(), wanted.flatten(), dim=0) > 0.999
