"""The report of streams: tables, pictures, side by side; and what can't be shown."""

import json

import pytest

from everlearn.cli import main
from everlearn.errors import ConfigError, StateError
from everlearn.report.prequential_page import scores_grid, stream_grid, write_prequential_report
from everlearn.report.prequential_results import is_prequential, prequential_results, read_prequential_run
from support.online import write_online_log


def write_stream_log(folder, kind="classify", seeds=(0,), n=3, ended=True):
    """Write the log of a stream of `n` scorings, as a run does."""
    folder.mkdir()
    names = {
        "classify": ("accuracy", "kappa", "macro_f1", "majority"),
        "score": ("mean_error", "root_mean_squared_error", "running_mean"),
        "tag": ("entity_f1", "accuracy", "kappa", "macro_f1", "majority"),
    }[kind]
    recipe = {"source": {"kind": kind}, "seeds": list(seeds), "seed": None}
    lines = [{"type": "header", "recipe": recipe, "env": {"device": "cpu"}, "items": []}]
    for seed in seeds:
        lines.append({"type": "drift", "seed": seed, "episode": 150})
        for number in range(1, n + 1):
            value = 0.5 + 0.1 * number + 0.01 * seed
            main_score = {"name": names[0], "value": value, "low": value - 0.1, "high": value + 0.1}
            scores = dict.fromkeys(names, value)
            lines.append(
                {
                    "type": "prequential", "seed": seed, "episode": 100 * number, "main": main_score, "whole": scores,
                    "faded": scores, "loss": 1 / number, "learning_rate": 1e-3 / number, "labels": ["a", "b"],
                    "n_drifts": 1, "n_waiting": 2, "n_given_up": 1, "n_unmatched": 0,
                    "strategy_bytes": {"replay": 2048}, "seconds": 2.0 * number,
                }
            )  # fmt: skip
        lines += [{"type": "end", "seed": seed, "episode": 100 * n}] * ended
    (folder / "evaluations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "recipe.yaml").write_text("kind: online\nsource: {name: rows}\n")
    return folder


@pytest.mark.parametrize("kind", ["classify", "tag", "score"])
def test_one_stream_has_a_page_a_picture_and_a_table(tmp_path, kind):
    folder = write_stream_log(tmp_path / "run", kind)
    views = write_prequential_report({"run": folder}, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.html", "report.md", "stream.png"}
    (row,) = scores_grid(views).rows
    assert row[1] == "0.800\n[0.700, 0.900]"
    (row,) = stream_grid(views).rows
    assert row == ("run", "2", "1", "3", "50.000", "2 KiB")
    assert "How it learned" in (tmp_path / "out" / "report.md").read_text()


def test_results_are_means_over_seeds(tmp_path):
    results = prequential_results(read_prequential_run(write_stream_log(tmp_path / "run", seeds=(0, 2))))
    assert (results["complete"], results["n"]) == (True, 300)
    assert results["score"]["value"] == pytest.approx(0.81)
    assert results["whole"]["kappa"] == pytest.approx(0.81)
    assert [point["episode"] for point in results["seeds"][1]["curve"]] == [100, 200, 300]
    assert results["seeds"][0]["drifts"] == [150]


def test_streams_are_compared_with_streams(tmp_path, capsys):
    one, two = write_stream_log(tmp_path / "one"), write_stream_log(tmp_path / "two", ended=False)
    assert main(["compare", str(one), str(two), "--out", str(tmp_path / "side")]) == 0
    assert (tmp_path / "side" / "comparison.png").exists()
    problems = write_online_log(tmp_path / "problems", {0: [[0, 0, 0, 0], [1, 1, 1, 1]]})
    assert not is_prequential(problems)
    assert main(["compare", str(one), str(problems), "--out", str(tmp_path / "side")]) == 1
    assert "compare: some runs have labelled rows and some don't" in capsys.readouterr().err


def test_what_can_not_be_shown_is_told(tmp_path):
    with pytest.raises(ConfigError, match="the run has scored no row yet"):
        write_prequential_report({"run": write_stream_log(tmp_path / "empty", n=0)}, tmp_path / "out")
    with pytest.raises(StateError, match=r"can't be read"):
        read_prequential_run(tmp_path / "none")
