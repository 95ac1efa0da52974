"""Grids: what they make of recipes, and what is wrong with them, told before anything starts."""

import pytest

from everlearn.bench.grid import MOST_CELLS, read_grid
from everlearn.errors import ConfigError
from support.grids import write_grid


def test_every_combination_is_a_cell_and_methods_come_before_seeds(tmp_path):
    path = write_grid(
        tmp_path,
        sizes=[8, 16],
        orders={"up": ["digits_0_1", "digits_2_3"], "down": ["digits_2_3", "digits_0_1"]},
        variants={"epochs": {"one": ["learner.epochs=1"], "two": ["learner.epochs=2"]}},
    )
    _, cells = read_grid(path)
    assert len(cells) == 2 * 2 * 3 * 2 * 2
    assert [cell.seed for cell in cells[:24]] == [0] * 24
    first = cells[0]
    assert (first.group, first.variant, first.name) == ("up, 8", "none, one", "up/8/none/one/seed-0")
    assert first.content["stream"]["per_task"] == 8
    assert first.content["stream"]["order"] == ["digits_0_1", "digits_2_3"]
    assert first.content["learner"]["epochs"] == 1
    assert first.content["strategies"] == []
    assert first.content["seeds"] == [0]


def test_settings_are_put_in_from_the_general_to_the_methods_own(tmp_path):
    settings = {"set": ["learner.epochs=3"], "set_for": {"joint": ["learner.epochs=5"]}}
    path = write_grid(tmp_path, **settings, seeds_for={"none": [7]})
    _, cells = read_grid(path, ["learner.batch_size=4"])
    found = {cell.name: cell.content["learner"] for cell in cells}
    assert list(found) == ["none/seed-7", "replay/seed-0", "joint/seed-0", "replay/seed-1", "joint/seed-1"]
    assert found["replay/seed-0"]["epochs"] == 3
    assert found["joint/seed-1"]["epochs"] == 5
    assert found["none/seed-7"]["batch_size"] == 4


def test_cells_may_be_of_any_kind_of_run(tmp_path):
    online = {"source": {"name": "arena"}, "episodes": 4}
    _, cells = read_grid(write_grid(tmp_path, recipe=online, sizes=[2], models=["pocket"]))
    assert cells[0].content["episodes"] == 2
    assert cells[0].content["model"] == {"name": "pocket"}


def test_what_is_compared_is_the_grids_to_say(tmp_path):
    models = {"small": {"name": "mlp", "options": {"hidden": [4]}}, "large": {"name": "mlp"}}
    _, cells = read_grid(write_grid(tmp_path, models=models, compare=["model", "method"]))
    assert (cells[0].group, cells[0].variant) == ("", "small, none")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": ["ewc"]}, r"method: is unknown.*Did you mean 'methods'"),
        ({"methods": []}, r"methods: is empty"),
        ({"methods": ["ewc", "ewc"]}, r"methods: repeats"),
        ({"methods": ["ewcc"]}, r"cell method ewcc: strategies\[0\].*Did you mean 'ewc'"),
        ({"seeds": []}, r"seeds: is empty"),
        ({"seeds": [0, 0]}, r"seeds: repeats"),
        ({"sizes": [0]}, r"sizes"),
        ({"set_for": {"ewc": ["learner.epochs=1"]}}, r"set_for\.ewc: is unknown"),
        ({"compare": ["models"]}, r"compare: is unknown"),
        ({"recipes": {"a": "b.yaml"}}, r"both or neither"),
        ({"recipe": "none.yaml"}, r"none\.yaml"),
        ({"models": {"a": {"nam": "mlp"}}}, r"cell model a, method none: model\.nam"),
        ({"variants": {"model": {"a": ["device=cpu"]}}}, r"variants\.model: is an axis of its own"),
        ({"variants": {"x": {"a b": [], "a_b": ["device=cpu"]}}}, r"two cells would share the folder none/a_b"),
        ({"seeds": list(range(MOST_CELLS))}, r"too many cells"),
        ({"recipe": {"kind": "advice", "recipe": {}}}, r"methods|is of a kind|strategies"),
        ({"search": {"space": {"learner.epochs": []}}}, r"search\.space\.learner\.epochs"),
    ],
)
def test_a_wrong_grid_gets_one_error(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        read_grid(write_grid(tmp_path, **changes))


def test_two_labels_that_make_one_folder_are_refused(tmp_path):
    path = write_grid(tmp_path, methods={"a b": [], "a_b": ["ewc"]})
    with pytest.raises(ConfigError, match="two cells would share the folder a_b"):
        read_grid(path)


def test_a_name_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text("recipe: {stream: {name: digits}, model: {name: mlp}}\nmethods:\n  a: []\n  a: [ewc]\n")
    with pytest.raises(ConfigError, match=r"line 4: a name stands twice. Got 'a'"):
        read_grid(path)
