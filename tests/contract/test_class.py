"""What a method's class must be: buildable, printable, strict about its fields, with a source."""

import dataclasses

import pytest
import yaml

from everlearn import registry
from everlearn.config import build_strategies
from everlearn.errors import ConfigError
from everlearn.models.load import load_model
from everlearn.state import pack
from support.runs import KINDS, TRAITS, make_bench

NAMES = registry.names("strategy")
BAD_VALUES = (-1, 0, 10**9, "no such choice", float("nan"))


def error_of(cls: type, **fields: object) -> str | None:
    """Return the message of the ConfigError that building raises, or None."""
    try:
        cls(**fields)
    except ConfigError as error:
        return str(error)
    except TypeError:
        pass  # a text for a number, which build_strategies refuses beforehand
    return None


@pytest.fixture(params=NAMES)
def cls(request):
    return registry.find("strategy", request.param)


def test_it_builds_from_its_defaults(cls):
    (strategy,) = build_strategies([cls.name])
    assert type(strategy) is cls
    assert build_strategies([{"name": cls.name}]) == [strategy]


def test_its_repr_builds_it_again(cls):
    strategy = cls()
    assert eval(repr(strategy), {cls.__qualname__: cls}) == strategy


def test_hyperparameters_are_stored_untouched_and_learned_state_ends_in_an_underscore(cls):
    strategy = cls()
    for field in dataclasses.fields(cls):
        if field.init:
            assert not field.name.endswith("_")
            default = field.default if field.default is not dataclasses.MISSING else field.default_factory()
            assert vars(strategy)[field.name] == default
        else:
            assert field.name.endswith("_")
    assert set(strategy.state()) == {field.name for field in dataclasses.fields(cls) if not field.init}


def test_state_before_anything_is_learned_is_tensors_and_json(cls):
    yaml.safe_dump(pack(cls().state(), {}, "state"))


def test_a_value_of_the_wrong_type_names_the_field_and_the_value(cls):
    for field in dataclasses.fields(cls):
        if field.init:
            with pytest.raises(ConfigError, match=rf"strategies\[0\]\.{field.name}.*\[\[\]\]"):
                build_strategies([{"name": cls.name, field.name: [[]]}])


def test_a_value_out_of_range_names_the_field_and_the_value(cls):
    refused = set()
    for field in dataclasses.fields(cls):
        if not field.init or field.type in ("bool", bool):
            continue
        for value in BAD_VALUES:
            error = error_of(cls, **{field.name: value})
            if error is not None:
                assert f"{cls.name}.{field.name}" in error
                assert repr(value) in error
                refused.add(field.name)
        assert field.name in refused, f"{cls.__name__}.{field.name} accepts anything"


def test_a_misspelt_key_gets_the_nearest_name(cls):
    for field in dataclasses.fields(cls):
        if field.init:
            with pytest.raises(ConfigError, match=rf"Did you mean '{field.name}'"):
                build_strategies([{"name": cls.name, field.name + "s": 1}])


def test_its_docstring_has_a_source_and_says_what_it_reproduces(cls):
    assert "Source:" in cls.__doc__
    assert "Reproduces:" in cls.__doc__


def test_inheritance_is_shallow_and_no_other_method_is_imported(cls):
    assert len(cls.__mro__) <= 4  # class, Strategy, object, and one more at most
    others = {registry.find("strategy", name) for name in NAMES} - {cls}
    module = __import__(cls.__module__, fromlist=["_"])
    assert not others & {thing for thing in vars(module).values() if isinstance(thing, type)}


def test_conflicts_name_methods_and_give_the_reason(cls):
    for other, reason in cls.conflicts.items():
        assert other in NAMES
        for pair in ([cls.name, other], [other, cls.name]):
            with pytest.raises(ConfigError, match=f"{cls.name} can't stand beside {other}|{other} can't stand beside"):
                build_strategies(pair)
        assert len(reason) > 10


def test_neutral_names_fields(cls):
    if cls.neutral is not None:
        cls(**cls.neutral)


@pytest.mark.parametrize("kind", KINDS)
def test_models_that_it_is_unsuited_for_are_refused_with_the_reason(cls, kind, llama, bert):
    bench = make_bench(kind, llama, bert)
    assert load_model(bench.config, bench.tasks).traits == TRAITS[kind]
    reasons = [reason for unsuited, reason in cls.unsuited.items() if set(unsuited.split("+")) <= set(TRAITS[kind])]
    for reason in reasons:
        assert len(reason) > 10
        with pytest.raises(ConfigError, match=f"strategy '{cls.name}'.*everlearn ls strategies"):
            bench.run([cls.name])
