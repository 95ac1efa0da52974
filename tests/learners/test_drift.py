"""What follows a detection: the segment's end, a new task, a raised learning rate."""

import json

import pytest

from everlearn.errors import ConfigError
from everlearn.learners.detectors import DriftDetector, PageHinkley
from everlearn.learners.drift import DriftResponse, Reaction

ERRORS = [0.0] * 50 + [1.0] * 50 + [0.0] * 50 + [1.0] * 50


def respond(**options) -> DriftResponse:
    return DriftResponse(DriftDetector(PageHinkley(threshold=2.0)), **options)


def reactions(response: DriftResponse, errors: list[float]) -> list[Reaction]:
    return [response.observe(error) for error in errors]


def test_consolidate_ends_the_segment_in_the_episode_of_the_drift_only():
    found = reactions(respond(), ERRORS)
    ends = [place for place, reaction in enumerate(found) if reaction.end_segment]
    assert ends == [place for place, reaction in enumerate(found) if reaction.drift]
    assert len(ends) == 2
    assert 50 < ends[0] < 60
    assert {(reaction.task, reaction.rate_factor) for reaction in found} == {(0, 1.0)}


def test_a_boundary_ends_the_segment_and_numbers_the_tasks():
    found = reactions(respond(actions=("boundary",)), ERRORS)
    first, second = (place for place, reaction in enumerate(found) if reaction.end_segment)
    assert [found[place].task for place in (0, first - 1, first, second - 1, second, -1)] == [0, 0, 1, 1, 2, 2]


def test_the_rate_rises_at_once_and_falls_back_evenly():
    response = respond(actions=("raise_rate",), rate_factor=5.0, n_steps=4)
    found = reactions(response, ERRORS[:60])
    drift = next(place for place, reaction in enumerate(found) if reaction.drift)
    factors = [reaction.rate_factor for reaction in found[drift - 1 : drift + 6]]
    assert factors == [1.0, 5.0, 4.0, 3.0, 2.0, 1.0, 1.0]
    assert not any(reaction.end_segment for reaction in found)


def test_without_an_action_a_drift_is_only_told():
    found = reactions(respond(actions=()), ERRORS)
    assert [reaction for reaction in found if reaction.drift] == [Reaction(drift=True)] * 2
    assert all(reaction == Reaction() for reaction in found if not reaction.drift)


@pytest.mark.parametrize("stop", [0, 52, 53, 54, 60, 180])
def test_resumed_it_goes_on_as_before(stop):
    options = {"actions": ("boundary", "raise_rate"), "n_steps": 20}
    expected = reactions(respond(**options), ERRORS)
    first, second = respond(**options), respond(**options)
    found = reactions(first, ERRORS[:stop])
    second.load_state(json.loads(json.dumps(first.state())))
    assert found + reactions(second, ERRORS[stop:]) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"actions": ("boundry",)}, "Did you mean 'boundary'"),
        ({"rate_factor": 0}, r"drift\.rate_factor: is out of range. Got 0"),
        ({"n_steps": 0}, r"drift\.n_steps: is out of range. Got 0"),
    ],
)
def test_a_bad_option_is_named_with_its_value(options, message):
    with pytest.raises(ConfigError, match=message):
        respond(**options)
