"""Deciding: cosine, fixed and calibrated rules, trials, tau, state."""

import pytest
import torch
from tests.experts.router.conftest import BLOCKS, N, look, skills

from everlearn.errors import ConfigError
from everlearn.experts.profiles import Prototypes
from everlearn.experts.router import Decision, Router, RouterConfig
from everlearn.state import load_value, save_value


@pytest.fixture(scope="module")
def known() -> Prototypes:
    """Six experts; expert 7 has learned two tasks."""
    return Prototypes(skills(7), [2, 3, 5, 7, 7, 8, 9], [f"task {n}" for n in range(7)])


def router(seed: int = 0, **options: object) -> Router:
    return Router(RouterConfig(**options), BLOCKS, seed)


def feed(one: Router, known: Prototypes, n: int, first: int = 0) -> list[Decision]:
    """Let it decide on n looks at the known skills and at strange ones in turn; reuse is right on known skills."""
    made = []
    for number in range(first, first + n):
        familiar = number % 2 == 0
        source = known.vectors[number % 7] if familiar else skills(1, seed=50 + number)[0]
        decision = one.decide(look(source, number), known, {3: 2})
        one.learned(decision, familiar)
        made.append(decision)
    return made


def test_the_nearest_expert_comes_first_by_its_nearest_prototype(known):
    decision = router(threshold=0.5).decide(look(known.vectors[4], 1), known, {7: 3})
    assert (decision.action, decision.expert) == ("reuse", 7)
    best = decision.candidates[0]
    assert (best.task, best.uses) == ("task 4", 3)
    assert best.similarity > 0.9 > max(one.similarity for one in decision.candidates[1:])
    assert len({one.expert for one in decision.candidates}) == 4
    similarities = router().similarities(torch.stack([look(known.vectors[4], 1)] * 2), known)
    assert similarities.shape == (2, 6)
    assert similarities[0, 3] == pytest.approx(best.similarity)


def test_only_what_can_answer_is_a_candidate_and_by_what_it_can(known):
    crowd = Prototypes(look(known.vectors[2], 0).repeat(300, 1), [*range(10, 310)], ["crowd"] * 300)
    many = Prototypes(
        torch.cat([known.vectors, crowd.vectors]), known.experts + crowd.experts, known.tasks + crowd.tasks
    )
    able = {(9, "task 6"), (7, "task 3")}
    for similarity in ("cosine", "random"):
        options = {"threshold": -1.0, "similarity": similarity}
        decision = router(**options).decide(known.vectors[4], many, {}, able=lambda *one: one in able)
        assert {(one.expert, one.task) for one in decision.candidates} == able
        assert (decision.action, decision.expert) == ("reuse", decision.candidates[0].expert)


def test_what_no_expert_can_answer_begins_from_the_nearest_at_most(known):
    def decide(**options: object) -> Decision:
        return router(**options).decide(known.vectors[0], known, {}, able=lambda expert, task: False)

    forked = decide(threshold=0.5, compose=True)
    assert (forked.action, forked.expert, forked.trial) == ("fork", 2, False)
    assert forked.reason.endswith("at or above the bar of 0.50, but no expert has a head for its labels.")
    assert decide(threshold=1.1).action == "create"
    assert decide(threshold=1.1, fork_above=0.5, compose=True).action == "fork"


def test_without_experts_one_is_created():
    nobody = Prototypes(torch.zeros(0, N), [], [])
    for options in ({}, {"threshold": 0.5}, {"similarity": "always_shared"}, {"similarity": "oracle"}):
        decision = router(**options).decide(skills(1)[0], nobody, {})
        assert (decision.action, decision.expert, decision.candidates) == ("create", None, ())


def test_threshold_above_1_forces_new_experts(known):
    assert router(threshold=1.1).decide(known.vectors[0], known, {}).action == "create"
    assert router(threshold=0.95).decide(known.vectors[0], known, {}).action == "reuse"
    forked = router(threshold=1.1, fork_above=0.9).decide(known.vectors[0], known, {})
    assert (forked.action, forked.expert) == ("fork", 2)


def test_rules_that_do_not_look(known):
    strange = skills(1, seed=9)[0]
    decide = {name: router(similarity=name).decide for name in ("oracle", "always_new", "always_shared")}
    told = decide["oracle"](strange, known, {}, true_expert=8)
    assert (told.action, told.expert) == ("reuse", 8)
    assert decide["oracle"](strange, known, {}).action == "create"
    assert decide["always_new"](known.vectors[0], known, {}).action == "create"
    shared = decide["always_shared"](strange, known, {})
    assert (shared.action, shared.expert) == ("adapt", 2)


def test_what_is_below_the_bar_is_adapted_forked_composed_or_made_anew(known):
    between = torch.stack([known.vectors[0], known.vectors[2]]).mean(0)
    bars = {"threshold": 0.95, "fork_above": 0.5}
    assert router(**bars).decide(between, known, {}).action == "fork"
    assert router(**bars, compose=True).decide(between, known, {}).action == "compose"
    assert router(**bars, adapt_above=0.6).decide(between, known, {}).action == "adapt"
    assert router(**bars).decide(skills(1, seed=9)[0], known, {}).action == "create"


def test_nothing_is_reused_untried_at_first_and_less_is_tried_later(known):
    one = router(trial_rate=0.1, bootstrap=4)
    first = one.decide(known.vectors[0], known, {})
    assert (first.action, first.trial, first.trial_chance) == ("reuse", True, 1.0)
    made = feed(one, known, 150)
    chances = [decision.trial_chance for decision in made]
    assert chances == sorted(chances, reverse=True)
    assert chances[-1] == 0.1
    reused = [decision for decision in made[50:] if decision.action == "reuse"]
    assert len(reused) > 30
    assert 0 < sum(decision.trial for decision in reused) < 15


def test_until_there_are_enough_experts_reuse_is_tried_and_the_rest_made_apart(known):
    one = router(bootstrap=10)
    feed(one, known, 60)
    decision = one.decide(known.vectors[1], known, {})
    assert (decision.action, decision.trial, decision.trial_chance) == ("reuse", True, 1.0)
    between = torch.stack([known.vectors[0], known.vectors[2]]).mean(0)
    one.tau = 2.0
    assert one.decide(between, known, {}).action == "create"


def test_it_learns_what_similarity_reuse_takes(known):
    one, other = router(), router()
    for number in range(40):
        familiar = number % 2 == 0
        source = known.vectors[number % 7] if familiar else skills(1, seed=50 + number)[0]
        decision = one.decide(look(source, number), known, {})
        one.learned(decision, familiar)
        other.learned(decision, False)
    near, strange = look(known.vectors[2], 7), skills(1, seed=77)[0]
    best = one.decide(near, known, {}).candidates[0]
    assert best.ucb > best.p > 0.85
    assert one.decide(strange, known, {}).candidates[0].p < 0.3
    assert other.decide(near, known, {}).candidates[0].p < 0.2
    assert other.decide(near, known, {}).action != "reuse"


def test_tau_moves_with_outcomes_of_reuse_alone(known):
    one = router(risk=0.1, step=0.2)
    assert one.tau == 0.8
    reuse = one.decide(known.vectors[0], known, {})
    create = one.decide(skills(1, seed=9)[0], known, {})
    assert (reuse.action, create.action) == ("reuse", "create")
    one.learned(create, False)
    one.learned(reuse, None)
    assert one.tau == 0.8
    assert len(one.outcomes) == 1
    one.learned(reuse, False)
    assert one.tau == pytest.approx(0.8 + 0.2 * 0.9)
    one.learned(reuse, True)
    assert one.tau == pytest.approx(0.8 + 0.2 * 0.9 - 0.2 * 0.1)
    assert one.n_decisions == 4


def test_deciding_changes_nothing(known):
    one = router()
    feed(one, known, 30)
    vector = look(known.vectors[0], 3)
    assert one.decide(vector, known, {}) == one.decide(vector, known, {})


def test_a_restored_router_decides_the_same_on(known, tmp_path):
    one = router(seed=4, explore=0.3)
    feed(one, known, 45)
    save_value(tmp_path / "router", one.state(), "router")
    other = Router.load(one.config, BLOCKS, load_value(tmp_path / "router"), seed=4)
    assert feed(one, known, 30, first=45) == feed(other, known, 30, first=45)
    assert other.tau == one.tau


@pytest.mark.parametrize(
    ("blocks", "message"),
    [({}, "can't be those"), ({"texts": 3}, "can't be those"), ({"text": 3, "context": 4}, "context has 9")],
)
def test_blocks_that_are_no_signal_are_refused(blocks, message):
    with pytest.raises(ConfigError, match=message):
        Router(RouterConfig(), blocks)


def test_a_mismatch_is_named(known):
    with pytest.raises(ConfigError, match=r"need text 12 \+ gradient 8 \+ context 9 = 29 numbers. Got 28"):
        router().decide(torch.zeros(28), known, {})
    state = router().state()
    with pytest.raises(ConfigError, match=r"its state has text 12 .* = 29 numbers. Got 'text 16 .* = 33 numbers'"):
        Router.load(RouterConfig(), BLOCKS | {"text": 16}, state)


@pytest.mark.parametrize(
    "options",
    [
        {"similarity": "cosin"}, {"threshold": "high"}, {"top_k": 0}, {"top_k": 2.5}, {"explore": -1}, {"risk": 0},
        {"risk": 0.7}, {"risk_of": "all"}, {"step": 0}, {"trial_rate": 1.5}, {"bootstrap": -1}, {"fork_above": "no"},
        {"weights": {"texts": 1.0}}, {"weights": {"text": -1.0}},
    ],
)  # fmt: skip
def test_bad_settings_are_named(options):
    (name,) = options
    with pytest.raises(ConfigError, match=f"router: (weight of )?({name}|text)"):
        RouterConfig(**options)
