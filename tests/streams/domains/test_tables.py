"""What the tables say fits together, and is what was published."""

import pytest

from everlearn.catalog import section, summary
from everlearn.cli import main
from everlearn.evaluation.score import METRICS
from everlearn.registry import find, names
from everlearn.streams.domains.domain import DomainStream

NAMED = [name for name in names("stream") if issubclass(find("stream", name), DomainStream)]
SIZES = {
    "cl15": 15, "trace": 8, "glue": 9, "dsc": 24, "asc": 19, "ner_domains": 9, "news_social_academic": 3,
    "formality": 4, "multilingual": 8,
}  # fmt: skip


def test_all_that_were_promised_are_there():
    assert {name: len(find("stream", name).entries) for name in NAMED} == SIZES


@pytest.mark.parametrize("name", NAMED)
def test_a_table_is_whole(name):
    stream = find("stream", name)
    known = {metric for metrics in METRICS.values() for metric in metrics}
    assert stream.name() == name
    assert section(stream, "Licence")
    assert section(stream, "Source")
    assert len(summary(stream)) < 150
    for task, entry in stream.entries.items():
        assert entry.licence, task
        assert entry.source, task
        assert entry.metrics, task
        assert set(entry.metrics) <= known, task
        assert entry.hub is None or entry.hub.count("/") == 1, task
        assert {"train", "evaluation"} <= set(entry.splits), task
    for order, tasks in stream.orders.items():
        assert len(set(tasks)) == len(tasks), order
        assert set(tasks) <= set(stream.entries), order


def test_the_orders_of_cl15_are_the_published_ones():
    cl15 = find("stream", "cl15")
    assert [len(cl15.orders[str(number)]) for number in range(1, 7)] == [4, 4, 4, 15, 15, 15]
    assert cl15.orders["1"] == ("dbpedia", "amazon", "yahoo", "agnews")
    assert cl15.orders["4"][:4] + cl15.orders["4"][-2:] == ("mnli", "cb", "wic", "copa", "multirc", "yahoo")
    assert cl15.orders["5"][:3] + cl15.orders["5"][-3:] == ("multirc", "boolqa", "wic", "yelp", "amazon", "yahoo")
    assert cl15.orders["6"][:3] + cl15.orders["6"][-3:] == ("yelp", "amazon", "mnli", "multirc", "boolqa", "wic")


def test_licence_and_source_are_printed(capsys):
    assert main(["ls", "streams"]) == 0
    listed = capsys.readouterr().out
    assert "licence" in listed
    assert "formality" in listed
    assert main(["show", "stream", "dsc"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for told in (
        "Licence: none stated",
        "LifelongSentClass",
        "order 1: Tools_and_Home_Improvement",
        "train_rows, test_rows: rows of a task, at most",
    ):
        assert told in shown
    assert main(["show", "glue"]) == 0
    assert "nyu-mll/glue" in capsys.readouterr().out
    assert main(["show", "stream", "glue", "cola"]) == 1
    assert "takes one name" in capsys.readouterr().err
