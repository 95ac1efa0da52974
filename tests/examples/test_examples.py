"""Each example runs as it stands, small, on rows that it makes itself."""

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = {
    "text_classification_continual": ("--rows", "40", "--epochs", "1"),
    "sentiment_analysis_lifelong": ("--rows", "40", "--epochs", "1"),
    "multi_domain_learning": ("--rows", "12", "--epochs", "1"),
    "packnet_example": ("--rows", "40", "--epochs", "1"),
    "ner_domains": ("--rows", "40", "--epochs", "1"),
    "home_in_production": ("--rows", "20", "--epochs", "1"),
}
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # so few rows teach little, and notes say so


@pytest.fixture
def run(monkeypatch, capsys):
    """Run an example with arguments, as from the command line; return what it prints."""

    def started(name: str, *arguments: str) -> str:
        monkeypatch.syspath_prepend(str(EXAMPLES))
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return started


def test_each_is_tested():
    scripts = {path.stem for path in EXAMPLES.glob("*.py")}
    assert scripts == {*SMALL, "made", "write_stories"}


@pytest.mark.parametrize("name", sorted(SMALL.keys() - {"home_in_production", "packnet_example"}))
def test_it_runs_and_prints_intervals(name, run):
    printed = run(name, *SMALL[name])
    assert printed.count("backward_transfer") >= 3
    assert printed.count("95% interval") >= 6


def test_packnet_keeps_what_it_answered(run):
    printed = run("packnet_example", *SMALL["packnet_example"])
    packnet = printed.split("\nPackNet\n")[1]
    lines = [line for line in packnet.splitlines() if "│ accuracy │" in line]
    assert len(lines) == 3
    for line in lines:
        _, _, learned, now, *_ = (cell.strip() for cell in line.strip("│").split("│"))
        assert learned == now
    assert "weights: letters 40%, dishes 24%, weather 14%, free 22%" in packnet


def test_the_home_refuses_spoilt_rows_and_goes_back(run):
    printed = run("home_in_production", *SMALL["home_in_production"])
    assert "version 3, shop again" in printed
    assert "rolled back: version 1, nothing is deleted: [0, 1, 2, 3]" in printed


def test_it_takes_a_model_and_files(run, bert, tmp_path):
    for name, words in {"pets": ("cat", "dog"), "colours": ("red", "blue")}.items():
        rows = [f'{{"text": "is a {word}{" a" * n}", "label": "{word}"}}\n' for word in words for n in range(6)]
        (tmp_path / f"{name}.jsonl").write_text("".join(rows), encoding="utf-8")
    arguments = ("--model", str(bert), "--data", str(tmp_path), "--epochs", "1")
    for name in ("text_classification_continual", "sentiment_analysis_lifelong"):
        printed = run(name, *arguments)
        assert "│ colours │ accuracy │" in printed
        assert "│ pets    │ accuracy │" in printed


@pytest.mark.parametrize("name", ["text_classification_continual", "packnet_example", "ner_domains"])
def test_files_need_a_model(name, run, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(name, "--data", str(tmp_path))
    assert "--data needs --model" in capsys.readouterr().err
