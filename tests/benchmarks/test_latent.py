"""The benchmark of generated hidden states runs, and says what lies nearer."""

from dataclasses import replace

import latent
import pytest
import torch

from support.runs import learn_at, make_bench


@pytest.mark.parametrize("name", latent.METHODS)
def test_a_task_is_measured(name, llama, bert, monkeypatch):
    bench = make_bench("classify", llama, bert)
    run = bench.run(epochs=1)
    learn_at(run, bench.tasks[0], 0)
    build = latent.build_strategies
    quick = {"epochs": 2, "slots": 2, "code_size": 4, "width": 8}
    monkeypatch.setattr(latent, "build_strategies", lambda entries: build([{**entries[0], **quick}]))
    before = {key: p.detach().clone() for key, p in run.model.adapters.trainable().items()}
    held_out = replace(bench.tasks[0], train=bench.tasks[0].evaluation)
    found = latent.measured(run, bench.tasks[0], held_out, name, 1)
    assert found["layer"] == 1
    assert 0 <= found["nearer_to_trained"] <= 1
    assert found["generated"]["frechet"] > 0
    assert found["nearest_trained"] > 0
    assert set(found["generated"]) == set(found["real"]) == {"frechet", "precision", "recall", "answer_distance"}
    assert all(torch.equal(p, before[key]) for key, p in run.model.adapters.trainable().items())
