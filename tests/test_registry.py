import sys

import pytest

from everlearn import registry
from everlearn.errors import ConfigError


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    for kind in registry.PACKAGES:
        registry.names(kind)  # imports all modules, which register only once
    monkeypatch.setattr(registry, "_entries", {kind: dict(entries) for kind, entries in registry._entries.items()})


def test_what_is_registered_is_found():
    @registry.register("learner", "made_up")
    class MadeUp:
        pass

    assert registry.find("learner", "made_up") is MadeUp
    assert "made_up" in registry.names("learner")
    assert {"sft", "made_up"} <= set(registry.names("learner"))


def test_names_come_sorted_and_from_every_module():
    names = registry.names("strategy")
    assert names == sorted(names)
    assert {"none", "joint", "cumulative", "replay", "ewc", "lwf", "agem"} <= set(names)


def test_a_name_is_held_by_one_thing():
    class First:
        pass

    class Second:
        pass

    registry.register("learner", "held")(First)
    registry.register("learner", "held")(First)
    with pytest.raises(ConfigError, match="already registered"):
        registry.register("learner", "held")(Second)


def test_unknown_names_and_kinds():
    with pytest.raises(ConfigError, match=r"strategies\[1\]: is no strategy. Got 'ewk'. Did you mean 'ewc'"):
        registry.find("strategy", "ewk", "strategies[1]")
    with pytest.raises(ConfigError, match="unknown kind"):
        registry.register("planet", "earth")


def test_code_from_outside_the_tree(tmp_path, monkeypatch):
    code = "import dataclasses as d\n@d.dataclass\nclass Thing: pass\nclass Other: pass\ndef judge(): pass\n"
    (tmp_path / "outside_module.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    assert registry.find("strategy", "outside_module:Thing") is sys.modules["outside_module"].Thing
    for name in ("outside_module:Nothing", "no_such_module:Thing", ":Thing"):
        with pytest.raises(ConfigError, match="can't be imported"):
            registry.find("strategy", name)
    for number, text in enumerate(("def judge(:", "raise RuntimeError('no GPU')", "import no_such_module")):
        (tmp_path / f"broken_{number}.py").write_text(text)
        told = ("SyntaxError: .*", "RuntimeError: no GPU", "No module named 'no_such_module'")[number]
        with pytest.raises(ConfigError, match=rf"reward: can't be imported \({told}\)\. Got 'broken_{number}:judge'"):
            registry.find("reward", f"broken_{number}:judge")
    assert registry.find("verifier", "outside_module:judge")
    for kind, name in (("strategy", "Other"), ("source", "judge"), ("problem", "Thing"), ("verifier", "__doc__")):
        with pytest.raises(ConfigError, match=f"can't be a {kind}"):
            registry.find(kind, f"outside_module:{name}")
