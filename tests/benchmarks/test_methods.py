import methods
import pytest

from everlearn.runs import run
from everlearn.state import read_json
from support.recipes import plain_recipe

TIMES = ("cost", "env", "recipe")


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    """Return the folder of two runs of one seed each, laid together, and that of one run over both seeds."""
    folder = tmp_path_factory.mktemp("methods")
    for seed in (3, 11):
        run(plain_recipe(["ewc"], seeds=[seed]), folder / "apart" / f"seed-{seed}")
    run(plain_recipe(["ewc"], seeds=[3, 11]), folder / "whole")
    methods.join_seeds(folder / "apart")
    return folder


def test_seeds_run_apart_are_summed_up_as_one_run(joined):
    apart, whole = (read_json(joined / name / "results.json") for name in ("apart", "whole"))
    assert apart["summary"] == whole["summary"]
    assert apart["summary"]["average_accuracy"]["n_seeds"] == 2
    assert apart["recipe"]["seeds"] == [3, 11]
    for one, other in zip(apart["seeds"], whole["seeds"], strict=True):
        assert {**one, "cost": None} == {**other, "cost": None}


def test_an_unfinished_seed_stays_out(joined, tmp_path):
    for name in ("seed-3", "seed-11"):
        (tmp_path / name).mkdir()
        for file in ("results.json", "results.jsonl"):
            (tmp_path / name / file).write_bytes((joined / "apart" / name / file).read_bytes())
    (tmp_path / "seed-11" / "results.json").unlink()
    methods.join_seeds(tmp_path)
    assert [entry["seed"] for entry in read_json(tmp_path / "results.json")["seeds"]] == [3]


def test_numbers_hold_what_the_table_shows(joined):
    found = methods.numbers_of(joined / "apart", ["ewc"])
    assert found["n_seeds"] == 2
    assert found["average_accuracy"]["low"] < found["average_accuracy"]["mean"] < found["average_accuracy"]["high"]
    assert found["bytes_kept"] > 0
    assert found["train_s"] > 0


def test_a_method_has_its_own_seeds_or_the_suites():
    suite = {"seeds": [0], "seeds_for": {"none": [0, 1, 2]}}
    assert methods.seeds_of(suite, "none") == [0, 1, 2]
    assert methods.seeds_of(suite, "ewc") == [0]
    assert methods.seeds_of({}, "ewc") == (0, 1, 2)


def test_every_suite_names_its_methods_seeds_and_recipe():
    for name, suite in methods.yaml.safe_load(methods.SUITES.read_text(encoding="utf-8")).items():
        assert (methods.SUITES.parents[1] / suite["recipe"]).exists(), name
        assert set(suite.get("seeds_for", {})) <= set(suite["methods"]), name
        assert set(suite.get("set_for", {})) <= set(suite["methods"]), name
