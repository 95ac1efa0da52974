"""Each stream on the data that lies beside the checkout."""

import pytest

from everlearn.registry import find

pytestmark = pytest.mark.real_data


def _build(shared_data, name, folder, **options):
    return find("stream", name)(folder=str(shared_data / folder), **options).build()


def _sizes(stream):
    return {task.name: (len(task.train), len(task.evaluation), len(task.labels)) for task in stream}


def test_cl15(shared_data):
    assert _sizes(_build(shared_data, "cl15", "cl15", order=1)) == {
        "dbpedia": (1000, 500, 14), "amazon": (1000, 500, 5), "yahoo": (1000, 418, 2), "agnews": (1000, 500, 4),
    }  # fmt: skip
    rows = _build(shared_data, "cl15", "cl15", order=5, skip_missing=True, train_rows=20, test_rows=10)
    assert [task.name for task in rows] == [
        "mnli", "qqp", "rte", "imdb", "sst2", "dbpedia", "agnews", "yelp", "amazon", "yahoo",
    ]  # fmt: skip


def test_glue(shared_data):
    stream = _build(shared_data, "glue", "glue", skip_missing=True)
    assert len(stream) == 7
    assert _sizes(stream)["rte"] == (1000, 277, 2)
    assert stream.tasks[0].metrics == ("matthews", "accuracy")


def test_sentiment(shared_data):
    stream = _build(shared_data, "dsc", "sentiment/dsc", order=1, train_rows=30, test_rows=20)
    assert set(_sizes(stream).values()) == {(30, 20, 2)}
    assert [task.name for task in stream][:2] == ["Tools_and_Home_Improvement", "Pet_Supplies"]
    stream = _build(shared_data, "asc", "sentiment/asc")
    assert len(stream) == 19
    assert all(row["text_pair"] for row in stream.tasks[2].train)
    assert _sizes(stream)["SemEval14_rest"] == (1000, 500, 3)


def test_entities(shared_data):
    stream = _build(shared_data, "ner_domains", "ner", skip_missing=True)
    assert len(stream) == 7
    assert _sizes(stream)["conll2003"] == (1000, 500, 9)
    joined = _build(shared_data, "news_social_academic", "ner", train_rows=50)
    assert _sizes(joined) == {"news": (50, 500, 7), "social": (50, 500, 7), "academic": (50, 500, 7)}
