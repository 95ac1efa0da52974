import torch

from everlearn.strategies.none import Plain
from support.runs import assert_same, make_bench, weights


def test_it_keeps_nothing_and_forgets(llama, bert):
    bench = make_bench("plain", llama, bert, head="shared")
    run = bench.run(["none"], epochs=30)
    bench.learn(run, upto=1)
    before = run.score(bench.tasks[0]).value
    run.position = 1
    run.learn(bench.tasks[1])
    assert run.score(bench.tasks[0]).value < before
    assert (Plain().state(), Plain().state_bytes()) == ({}, 0)
    assert_same(weights(run), weights(bench.learn(bench.run(epochs=30))))
    assert all(torch.isfinite(tensor).all() for tensor in weights(run).values())
