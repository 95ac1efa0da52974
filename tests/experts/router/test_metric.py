"""The learned similarities."""

import pytest
import torch
from tests.experts.router.conftest import BLOCKS, N, library_of, look

from everlearn.errors import ConfigError
from everlearn.experts.profiles import Prototypes
from everlearn.experts.router import Router, RouterConfig
from everlearn.state import load_value, save_value

N_EXPERTS = 100


@pytest.fixture(scope="module")
def known() -> Prototypes:
    """A hundred experts, which differ in four numbers; the others are noise, other each time."""
    return library_of(N_EXPERTS)


@pytest.fixture(scope="module")
def looks(known) -> tuple[torch.Tensor, list[int]]:
    experts = [*known.experts, *known.experts]
    return torch.stack([noisy(known.vectors[e], n) for n, e in enumerate(experts)]), experts


def noisy(skill: torch.Tensor, seed: int) -> torch.Tensor:
    """Return a look at a skill of which only the first four numbers tell anything."""
    noise = torch.randn(N, generator=torch.Generator().manual_seed(5000 + seed))
    return torch.cat([skill[:4] + 0.1 * noise[:4], noise[4:]])


def n_right(router: Router, known: Prototypes) -> int:
    tried = torch.stack([noisy(known.vectors[e], 900 + e) for e in range(N_EXPERTS)])
    return int((router.similarities(tried, known).argmax(1) == torch.arange(N_EXPERTS)).sum())


@pytest.mark.parametrize("similarity", ["linear", "mlp"])
def test_untrained_it_is_the_cosine(similarity, known):
    plain, learned = (Router(RouterConfig(similarity=name), BLOCKS) for name in ("cosine", similarity))
    vectors = torch.stack([look(known.vectors[n], n) for n in range(5)])
    torch.testing.assert_close(learned.similarities(vectors, known), plain.similarities(vectors, known))


@pytest.mark.parametrize(("similarity", "options"), [("linear", {"learning_rate": 1e-2}), ("mlp", {})])
def test_it_learns_what_tells_tasks_apart_and_changes_no_prototype(similarity, options, known, looks, tmp_path):
    before = known.vectors.clone()
    router = Router(RouterConfig(similarity=similarity), BLOCKS)
    at_first = n_right(router, known)
    found = router.fit(*looks, known, n_steps=200, weight_decay=0.1, **options)
    assert found.after < found.before
    assert n_right(router, known) > 1.3 * at_first
    assert torch.equal(known.vectors, before)  # whether in a batch or not, whatever weight decay and moments do
    save_value(tmp_path / "router", router.state(), "router")
    other = Router.load(router.config, BLOCKS, load_value(tmp_path / "router"))
    vectors = looks[0][:7]
    assert torch.equal(other.similarities(vectors, known), router.similarities(vectors, known))
    assert other.decide(vectors[0], known, {}) == router.decide(vectors[0], known, {})


def test_the_mlp_is_the_same_in_both_orders_and_in_decisions(known, looks):
    router = Router(RouterConfig(similarity="mlp"), BLOCKS)
    router.fit(*looks, known, n_steps=20)
    embedded = torch.nn.functional.normalize(looks[0][:6], dim=1)
    scores = router._metric.scores(embedded, embedded)
    torch.testing.assert_close(scores, scores.T)
    candidates = router.decide(looks[0][0], known, {}).candidates
    every = router.similarities(looks[0][:1], known)[0]
    for one in candidates:
        assert one.similarity == pytest.approx(float(every[one.expert]), abs=1e-5)


def test_a_fit_that_finds_nothing_better_leaves_the_metric(known):
    router = Router(RouterConfig(similarity="linear"), BLOCKS)
    vectors = torch.stack([look(known.vectors[e], e, noise=0.01) for e in range(10)])
    found = router.fit(vectors, list(range(10)), known, n_steps=20, learning_rate=10.0)
    assert found.after == found.before
    assert not router._metric.up.any()


def test_what_cannot_be_learned_from_is_refused(known):
    vectors = known.vectors[:6]
    with pytest.raises(ConfigError, match="five experts or more"):
        Router(RouterConfig(similarity="linear"), BLOCKS).fit(vectors, [0, 0, 1, 1, 2, 2], known)
    with pytest.raises(ConfigError, match="each with a prototype"):
        Router(RouterConfig(similarity="linear"), BLOCKS).fit(vectors, [0, 1, 2, 3, 4, 500], known)
    with pytest.raises(ConfigError, match="nothing to learn"):
        Router(RouterConfig(), BLOCKS).fit(vectors, [0, 1, 2, 3, 4, 5], known)


def test_a_state_of_another_similarity_is_refused():
    state = Router(RouterConfig(similarity="linear"), BLOCKS).state()
    with pytest.raises(ConfigError, match=r"of the similarity linear\. Got 'mlp'"):
        Router.load(RouterConfig(similarity="mlp"), BLOCKS, state)


def test_text_looks_at_the_text_alone_and_random_at_nothing(known):
    signal = torch.cat([known.vectors[3][:12], known.vectors[5][12:]])
    decide = {name: Router(RouterConfig(similarity=name, threshold=0.0), BLOCKS).decide for name in ("text", "cosine")}
    assert decide["text"](signal, known, {}).candidates[0].expert == 3
    assert decide["text"](signal, known, {}).candidates[0].similarity > 0.999
    drawn = Router(RouterConfig(similarity="random", threshold=0.0, top_k=3), BLOCKS, seed=1)
    first, again, other = (drawn.decide(one, known, {}).candidates for one in (signal, signal, known.vectors[0]))
    assert first == again
    assert [one.expert for one in first] != [one.expert for one in other]
    torch.testing.assert_close(drawn.similarities(signal[None], known)[0].max(), torch.tensor(first[0].similarity))
