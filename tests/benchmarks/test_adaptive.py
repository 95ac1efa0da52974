"""The table of the adaptive recipes: run on, not anew, with the claim's own interval beside it."""

import json

import adaptive
import pytest

LABELS = ("no", "yes")


@pytest.fixture
def glue(tmp_path):
    for task in ("sst2", "rte", "mrpc"):
        (tmp_path / task).mkdir()
        for role, n in (("train", 8), ("validation", 4)):
            rows = [
                {"text": f"is {'cat' if i % 2 else 'dog'} {task} {role} {i}", "label": LABELS[i % 2]} for i in range(n)
            ]
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (tmp_path / task / f"{role}.jsonl").write_text(lines, encoding="utf-8")
    return tmp_path


def test_recipes_run_over_seeds_into_one_table(glue, bert, tmp_path, monkeypatch):
    out, results = tmp_path / "out", tmp_path / "adaptive.json"
    monkeypatch.setattr(adaptive, "results_path", lambda name: results)
    words = ["adaptive.py", str(glue), "--out", str(out), "--model", str(bert), "--only", "SL_A"]
    words += ["--set", "learner.epochs=1", "--set", "model.max_length=32", "--set", "device=cpu"]
    monkeypatch.setattr("sys.argv", [*words, "--seeds", "0"])
    adaptive.main()
    first = (out / "SL_A" / "seed-0" / "results.jsonl").read_bytes()
    monkeypatch.setattr("sys.argv", [*words, "--seeds", "0,1"])
    adaptive.main()
    assert (out / "SL_A" / "seed-0" / "results.jsonl").read_bytes() == first
    numbers = json.loads(results.read_text())["numbers"]
    assert numbers["SL_A"]["n_seeds"] == 2
    rows = (out / "table.md").read_text().splitlines()
    assert len(rows) == 4
    assert rows[2].startswith("| SL_A | 2 | ")
    assert rows[3].startswith("| the notebook, Gemma-2B | 1 | 0.756 [0.699, 0.805] | +0.00 |")
