import torch
from torch.nn import functional as F

from everlearn.functional.projection import project_against
from everlearn.learners.gradients import reference_gradients
from everlearn.memory.rows import size
from everlearn.strategies import agem
from everlearn.strategy import Strategy
from support.runs import assert_unused_heads_stay, first_task_loss, make_bench


def flat(tensors):
    return torch.cat([t.flatten() for t in tensors]).double()


def test_the_optimizer_steps_along_the_projected_gradient(llama, bert, monkeypatch):
    seen, cosines, moves = {}, [], []

    def watched_reference(run, parameters, batches):
        seen["memory"] = reference_gradients(run, parameters, batches)
        return seen["memory"]

    def watched_projection(gradients, reference):
        before = F.cosine_similarity(flat(gradients), flat(reference), dim=0).item()
        changed = project_against(gradients, reference)
        after = F.cosine_similarity(flat(gradients), flat(reference), dim=0).item()
        cosines.append((before, after, changed))
        return changed

    class Watching(Strategy):
        """Sees the gradient that is left, and where the weights go."""

        def edit_grads(self, step):
            moving = [p for p in step.params.values() if p.grad is not None]
            self.params = moving
            self.gradient, self.before = flat([p.grad for p in moving]), flat([p.detach() for p in moving])

        def after_step(self, step):
            moves.append((flat([p.detach() for p in self.params]) - self.before, self.gradient))

    monkeypatch.setattr(agem, "reference_gradients", watched_reference)
    monkeypatch.setattr(agem, "project_against", watched_projection)
    bench = make_bench("plain", llama, bert, head="shared")
    options = {"optimizer": "sgd", "learning_rate": 0.5, "clip": None}
    bench.learn(bench.run([{"name": "agem", "protect": "gradient"}, Watching()], **options))
    assert any(changed for *_, changed in cosines)
    assert all(after >= -1e-6 for _, after, _ in cosines)
    assert all(changed == (before < 0) for before, _, changed in cosines)
    for move, gradient in moves:
        torch.testing.assert_close(move, -0.5 * gradient, rtol=1e-4, atol=1e-6)


def test_the_reference_is_over_a_sample_that_changes_from_step_to_step(llama, bert, monkeypatch):
    sizes, rows = [], []

    def watched(run, parameters, batches):
        sizes.append(sum(len(batch["y"]) for batch in batches))
        rows.append(batches[0]["x"].sum().item())
        return reference_gradients(run, parameters, batches)

    monkeypatch.setattr(agem, "reference_gradients", watched)
    bench = make_bench("plain", llama, bert)
    run = bench.learn(bench.run([{"name": "agem", "capacity": 9, "batch_size": 5}], epochs=1))
    assert sizes == [5] * 6
    assert len(set(rows)) > 3
    assert size(run.strategies[0].memory_) == 9


def test_it_forgets_less_than_plain_training(llama, bert):
    bench = make_bench("plain", llama, bert, head="shared")
    options = {"optimizer": "sgd", "learning_rate": 0.3, "epochs": 20}
    assert first_task_loss(bench, ["agem"], **options) < first_task_loss(bench, [], **options)


def test_the_memorys_pass_moves_no_head_of_an_earlier_task(llama, bert):
    assert_unused_heads_stay(make_bench("classify", llama, bert), "agem", weight_decay=0.1)
