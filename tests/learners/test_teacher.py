import torch

from everlearn.learners.teacher import as_teacher
from support.runs import make_bench, weights


def test_the_model_answers_with_the_teachers_weights_until_the_block_ends(llama, bert):
    run = make_bench("plain", llama, bert, dropout=0.5).run()
    run.model.network.train()
    present, x = weights(run), torch.ones(3, 6)
    teacher = {name: torch.zeros_like(p) for name, p in run.model.adapters.trainable().items()}
    with as_teacher(run, teacher):
        found = run.model.network(x)
        assert torch.equal(found, torch.zeros_like(found))
        assert not found.requires_grad
    assert run.model.network.training
    assert all(torch.equal(present[name], tensor) for name, tensor in weights(run).items())


def test_autocast_does_not_hand_the_teacher_the_students_weights(llama, bert):
    run = make_bench("plain", llama, bert).run()
    teacher = {name: torch.zeros_like(p) for name, p in run.model.adapters.trainable().items()}
    with torch.autocast("cpu", torch.bfloat16):
        student = run.model.network(torch.ones(3, 6))
        with as_teacher(run, teacher):
            assert run.model.network(torch.ones(3, 6)).abs().sum() == 0
        assert torch.equal(run.model.network(torch.ones(3, 6)), student)
