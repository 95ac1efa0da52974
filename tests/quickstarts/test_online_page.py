"""The page on learning online: its code and the recipes of labelled rows run as they stand, on a tiny encoder."""

import re
from pathlib import Path

import pytest
import yaml

from everlearn.kinds.online import load_online_recipe
from everlearn.runs import run
from support.labelled import delayed, labelled_row, tagged_row, write_rows

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "online.md").read_text()


def code(language: str, begins: str) -> str:
    """Return the block of the page that begins so."""
    return next(b for b in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if b.startswith(begins))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "reviews.jsonl", [labelled_row(number) for number in range(12)])
    return tmp_path


def test_the_code_of_the_page(bert, here):
    names = {"MODEL": str(bert)}
    exec(code("python", "from everlearn.kinds.online import"), names)
    assert names["results"]["complete"]
    assert (names["results"]["n"], (here / "runs" / "reviews" / "results.json").exists()) == (12, True)


def test_the_recipe_of_the_page(bert, here):
    content = yaml.safe_load(code("yaml", "source: {name: rows, path: reviews.jsonl"))
    content["model"]["name"], content["source"]["follow"] = str(bert), False
    assert run(content, here / "run")["score"]["name"] == "accuracy"


@pytest.mark.parametrize(
    ("name", "rows", "score"),
    [
        ("online_labels", [labelled_row(number) for number in range(12)], "accuracy"),
        ("online_tags", delayed([tagged_row(number) for number in range(12)], "tags", 2), "entity_f1"),
    ],
)
def test_the_recipes(bert, here, name, rows, score):
    write_rows(here / "rows.jsonl", rows)
    changes = [f"model.name={bert}", "model.max_length=16", "source.idle_s=1", "device=cpu"]
    results = run(load_online_recipe(ROOT / "recipes" / f"{name}.yaml", changes), here / "run")
    assert (results["complete"], results["score"]["name"]) == (True, score)
