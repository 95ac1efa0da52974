"""The index of very many prototypes."""

import numpy as np
import pytest
import torch
from tests.experts.router.conftest import BLOCKS, N, library_of, look

from everlearn.experts.profiles import Prototypes
from everlearn.experts.router import Router, RouterConfig, router, search
from everlearn.experts.router.metric import Embedding, Metric
from everlearn.experts.router.search import Index
from everlearn.experts.signals import Space

pytest.importorskip("usearch")


@pytest.fixture(scope="module")
def many() -> Prototypes:
    return library_of(400)


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(router, "EXACT", 300)


def part(of: Prototypes, rows: range) -> Prototypes:
    return Prototypes(of.vectors[list(rows)], of.experts[rows.start : rows.stop], of.tasks[rows.start : rows.stop])


def embedding(prototypes: Prototypes) -> Embedding:
    return Embedding(Space.of(prototypes.vectors, BLOCKS), Metric())


def test_it_finds_what_comparing_all_finds(many, monkeypatch):
    searching, comparing = Router(RouterConfig(), BLOCKS), Router(RouterConfig(), BLOCKS)
    vectors = [look(many.vectors[n], n, noise=0.5) for n in range(40)]
    found = [searching.decide(vector, many, {}) for vector in vectors]
    assert searching._index.recall >= 0.99
    monkeypatch.setattr(router, "EXACT", 10**6)
    every = [comparing.decide(vector, many, {}) for vector in vectors]
    assert comparing._index is None
    for one, other in zip(found, every, strict=True):
        assert one.candidates[0].expert == other.candidates[0].expert
        assert one.candidates[0].similarity == pytest.approx(other.candidates[0].similarity, abs=1e-6)
    ranked = [[[c.expert for c in each.candidates] for each in decisions] for decisions in (found, every)]
    alike = [one == other for one, other in zip(*ranked, strict=True)]
    assert np.mean(alike) > 0.9


def test_it_looks_on_where_the_nearest_cannot_answer(many):
    one, able = Router(RouterConfig(threshold=-1.0), BLOCKS), {3, 250, 399}
    decision = one.decide(many.vectors[100], many, {}, able=lambda expert, task: expert in able)
    assert one._index is not None
    assert {candidate.expert for candidate in decision.candidates} == able
    assert decision.action == "reuse"


def test_without_usearch_all_are_compared(many, monkeypatch):
    monkeypatch.setattr(router, "available", lambda: False)
    one = Router(RouterConfig(), BLOCKS)
    assert one.decide(many.vectors[9], many, {}).candidates[0].expert == 9
    assert one._index is None


def test_it_follows_the_library_and_is_made_anew_when_much_has_changed(many):
    one = Router(RouterConfig(), BLOCKS)
    one.decide(many.vectors[0], part(many, range(0, 350)), {})
    first = one._index
    for rows in (range(0, 360), range(20, 360)):
        present = part(many, rows)
        for number in (rows.start, rows.stop - 1):
            assert one.decide(many.vectors[number], present, {}).candidates[0].expert == number
        assert len(first) == len(rows)
    assert one._index is first
    assert one.decide(many.vectors[5], present, {}).candidates[0].expert != 5
    assert one.decide(many.vectors[5], many, {}).candidates[0].expert == 5
    assert one._index is not first


def test_what_stands_under_a_number_anew_is_found_anew(many):
    one = Router(RouterConfig(), BLOCKS)
    one.decide(many.vectors[0], many, {})
    vectors = many.vectors.clone()
    vectors[7] = torch.full((N,), 0.5)
    other = Prototypes(vectors, many.experts, many.tasks)
    assert one.decide(vectors[7], other, {}).candidates[0].expert == 7
    assert one.decide(many.vectors[7], other, {}).candidates[0].expert != 7


def test_the_cache_is_used_again_and_made_anew_when_damaged(many, tmp_path, monkeypatch):
    cache = tmp_path / "index"
    first = Router(RouterConfig(), BLOCKS, cache=cache).decide(many.vectors[3], many, {})
    made = []
    monkeypatch.setattr(Index, "make", classmethod(lambda cls, *args: made.append(args) or make(*args)))
    again = Router(RouterConfig(), BLOCKS, cache=cache)
    assert again.decide(many.vectors[3], many, {}) == first
    assert (len(made), again._index.graph.expansion_search >= 64) == (0, True)
    whole = (cache / "rows.usearch").read_bytes()
    (cache / "rows.usearch").write_bytes(whole[: len(whole) // 2])
    assert Router(RouterConfig(), BLOCKS, cache=cache).decide(many.vectors[3], many, {}) == first
    assert len(made) == 1
    assert (cache / "rows.usearch").read_bytes() == whole
    Router(RouterConfig(weights={"text": 3.0}), BLOCKS, cache=cache).decide(many.vectors[3], many, {})
    assert len(made) == 2


make = Index.make


def test_effort_grows_until_recall_suffices_and_what_never_does_is_not_used(many, monkeypatch):
    monkeypatch.setattr(search, "EFFORTS", (1, 2, 256))
    monkeypatch.setattr(search, "FOUND", 10)
    recalls = iter([0.5, 0.9, 0.995])
    monkeypatch.setattr(Index, "_measured_recall", lambda self, prototypes: next(recalls))
    assert Index.make(many, embedding(many)).graph.expansion_search == 256
    monkeypatch.setattr(Index, "_measured_recall", lambda self, prototypes: 0.9)
    one = Router(RouterConfig(), BLOCKS)
    assert one._prepared(many)._index is None


def test_recall_is_that_of_the_ten_nearest(many):
    index = Index.make(many, embedding(many))
    assert index._measured_recall(many) >= 0.99
    index.graph.remove(index._sorted[::2].copy())
    assert 0.3 < index._measured_recall(many) < 0.7
