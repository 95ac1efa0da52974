import pytest
import torch

from everlearn.memory.ranking import rank_rows
from everlearn.memory.scores import row_embeddings, row_entropies, row_gradients, row_losses, row_margins
from everlearn.memory.selection import diverse_order, herding_order
from support.runs import make_bench


@pytest.fixture
def ranked(llama, bert):
    bench = make_bench("plain", llama, bert)
    run = bench.learn(bench.run(), upto=1)
    task = bench.tasks[0]
    options = {"classes": task.train.y.tolist(), "n_kept": 3, "room": 9, "batch_size": 5}

    def rank(how, **changes):
        generator = torch.Generator().manual_seed(4)
        return rank_rows(how, run, task, task.train, generator=generator, **{**options, **changes})

    return rank, (run, task, task.train)


def test_by_what_the_model_makes_of_them(ranked):
    rank, rows = ranked
    by = {"entropy": row_entropies, "margin": row_margins, "highest_loss": row_losses, "lowest_loss": row_losses}
    for how, measure in by.items():
        values = measure(*rows, 5)[rank(how)].tolist()
        assert values == sorted(values, reverse=how in ("entropy", "highest_loss"))


def test_a_ring_begins_with_the_newest_and_then_has_what_was_there(ranked):
    assert ranked[0]("ring") == [*range(23, 2, -1), 0, 1, 2]
    assert sorted(ranked[0]("balanced")) == list(range(24))


def test_herding_is_within_each_class(ranked):
    rank, rows = ranked
    embeddings, y, order = row_embeddings(*rows, 5), rows[2].y, rank("herding")
    for own in (0, 1):
        members = (y == own).nonzero().flatten().tolist()
        wanted = [members[i] for i in herding_order(embeddings[members], 9)]
        assert [row for row in order if y[row] == own] == wanted
    assert rank("herding", classes=None) == herding_order(embeddings, 9)


def test_gradients_point_apart(ranked):
    rank, rows = ranked
    assert rank("gradient") == diverse_order(row_gradients(*rows), 9, torch.Generator().manual_seed(4))
