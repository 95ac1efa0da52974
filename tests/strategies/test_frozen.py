import pytest
import torch

from everlearn.errors import ConfigError
from everlearn.strategies.frozen import Frozen
from support.runs import make_bench, weights


@pytest.mark.parametrize("head", ["task", "shared"])
@pytest.mark.parametrize("kind", ["classify", "tag", "plain"])
def test_nothing_moves_but_the_output_layer(kind, head, llama, bert):
    bench = make_bench(kind, llama, bert, head=head)
    run = bench.run(["frozen"], optimizer="adamw", weight_decay=0.1)
    before = weights(run)
    bench.learn(run)
    after = weights(run)
    moved = {name for name in after if name not in before or not torch.equal(before[name], after[name])}
    heads = run.model.adapters.output_parameters()
    output = {name for name, p in run.model.network.named_parameters() if id(p) in heads}
    assert moved == output


def test_a_language_model_and_a_module_without_output_layer_are_refused(llama, bert):
    for kind in ("causal_lora", "causal_full"):
        with pytest.raises(ConfigError, match="nothing would be left to train"):
            make_bench(kind, llama, bert).run(["frozen"])
    with pytest.raises(ConfigError, match="no output layer to train"):
        Frozen().check_model(("tensor", "lora", "task_head"))
    Frozen().check_model(("tensor", "full", "task_head"))
