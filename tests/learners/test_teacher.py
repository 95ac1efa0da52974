from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from everlearn.evaluation.generate import draw_answers
from everlearn.learners.loader import row_batches
from everlearn.learners.teacher import as_base, as_teacher
from everlearn.models.load import AdapterConfig
from support.runs import make_bench, weights

CPU = torch.device("cpu")


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


def logits_on(run, network, task):
    ((_, batch),) = row_batches(run.model.objective, task.evaluation, task, len(task.evaluation))
    return run.model.objective.forward(network, batch).logits.detach()


@pytest.mark.parametrize("adapter", ["lora", "prompt", "prefix", "lora_prompt"])
def test_the_base_answers_as_it_did_before_anything_was_added(adapter, llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    bench = replace(bench, config=replace(bench.config, adapter=AdapterConfig(adapter, rank=4, soft_tokens=3)))
    base = AutoModelForCausalLM.from_pretrained(llama)
    run = bench.learn(bench.run(epochs=1), upto=1)
    run.model.network.train()
    flags = [(name, p.requires_grad) for name, p in run.model.network.named_parameters()]
    with torch.no_grad():
        learned = logits_on(run, run.model.network, bench.tasks[0])
        with as_base(run):
            found = logits_on(run, run.model.network, bench.tasks[0])
            (answer,) = draw_answers(run.model.network, run.model.objective, [[1, 5]], torch.full((1, 4), 0.3), CPU)
    assert torch.equal(found, logits_on(run, base, bench.tasks[0]))
    assert answer == draw_answers(base, run.model.objective, [[1, 5]], torch.full((1, 4), 0.3), CPU)[0]
    assert not torch.allclose(found, learned)
    assert [(name, p.requires_grad) for name, p in run.model.network.named_parameters()] == flags
    assert run.model.network.training
    assert torch.equal(logits_on(run, run.model.network, bench.tasks[0]), learned)


def test_what_methods_add_to_a_lora_is_no_part_of_the_base(llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    base = AutoModelForCausalLM.from_pretrained(llama)
    for name in ("inclora", "pnn", "hat", "separate", "aflora", "progressive_prompts", "l2p"):
        run = bench.learn(bench.run([name], epochs=1))
        trained = set(run.model.adapters.trainable())
        with as_base(run):
            found = logits_on(run, run.model.network, bench.tasks[0])
        assert torch.equal(found, logits_on(run, base, bench.tasks[0])), name
        assert set(run.model.adapters.trainable()) == trained, name
