import torch
from torch.nn import functional as F

from everlearn.learners.loader import EncodedMixture
from everlearn.types import Mixture, Step
from support.runs import make_bench


def test_one_draw_is_held_to_its_logits_and_another_to_its_labels(llama, bert):
    bench = make_bench("plain", llama, bert, head="shared")
    run = bench.run([{"name": "derpp", "alpha": 0.3, "beta": 0.6}], epochs=1)
    bench.learn(run, upto=1)
    run.position, run.current = 1, bench.tasks[1].name
    (strategy,) = run.strategies
    mixture = strategy.train_data(Mixture.of(bench.tasks[1]), run)
    assert [len(group) for group in mixture.groups] == [24, 24, 24]
    encoded = EncodedMixture(mixture, run.model.objective)
    addresses = [(0, 3), (1, 6), (1, 0), (2, 2)]
    step = Step(run, bench.tasks[1], {}, rows=addresses, batch=encoded.__getitems__(addresses))
    before = run.model.network(step.batch["x"]).detach()
    with torch.no_grad():
        for p in run.model.adapters.trainable().values():
            p.mul_(1.3)
    step.outputs = run.model.objective.forward(run.model.network, step.batch)
    dark, labelled = step.items_of({1}), step.items_of({2})
    now, targets = step.outputs.logits, step.outputs.targets
    ce = F.cross_entropy(now, targets, reduction="none")
    squares = (now - before).square().mean(1)
    wanted = (ce[:1].sum() + 0.3 * squares[dark].sum() + 0.6 * ce[labelled].sum()) / 4
    torch.testing.assert_close(F.cross_entropy(now, targets) + strategy.penalty(step), wanted)
    step.weights = torch.tensor([0.5, 1.0, 2.0, 0.5])
    weighed = torch.cat([ce[:1], 0.3 * squares[dark], 0.6 * ce[labelled]]) * step.weights
    torch.testing.assert_close((step.weights * ce).mean() + strategy.penalty(step), weighed.mean())


def test_the_two_draws_differ(llama, bert):
    bench, draws = make_bench("plain", llama, bert), []
    run = bench.run(["derpp"], epochs=1)
    (strategy,) = run.strategies
    penalty = strategy.penalty

    def watched(step):
        if run.position == 1:
            draws.append([[row for group, row in step.rows if group == number] for number in (1, 2)])
        return penalty(step)

    strategy.penalty = watched
    bench.learn(run)
    assert all(len(first) == len(second) == 4 for first, second in draws)
    assert [first for first, _ in draws] != [second for _, second in draws]
