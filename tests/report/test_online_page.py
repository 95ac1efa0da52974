"""The report of online runs: its files, tables and pictures, for one run and for several."""

import pytest
from PIL import Image

from everlearn.errors import ConfigError
from everlearn.report.online_page import accuracy_grid, group_grid, write_online_report
from everlearn.report.online_views import load_online_views
from everlearn.report.plot_online import PANELS, draw_learning, draw_six, draw_twelve, draw_types
from support.online import write_online_log

RISING = [[0, 0, 0, 1], [1, 1, 0, 1], [1, 1, 1, 1]]
FALLING = [[1, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


@pytest.fixture
def runs(tmp_path):
    one = write_online_log(tmp_path / "one", {0: RISING, 1: RISING}, kept=2**20)
    return {"one": one, "$two & <more>": write_online_log(tmp_path / "two", {0: FALLING})}


def test_one_run(runs, tmp_path):
    write_online_report({"one": runs["one"]}, tmp_path / "out")
    assert {entry.name for entry in (tmp_path / "out").iterdir()} == {
        "report.html", "report.md", "learning_curves.png",
    }  # fmt: skip
    page = (tmp_path / "out" / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert "http" not in page.replace("http://www.w3.org", "")
    with Image.open(tmp_path / "out" / "learning_curves.png") as picture:
        assert picture.width > 800


def test_several_runs(runs, tmp_path):
    write_online_report(runs, tmp_path / "out")
    names = {entry.name for entry in (tmp_path / "out").iterdir()}
    assert names == {"report.html", "report.md", "comparison.png", "comparison_all.png", "results_table.png"}
    assert "&lt;more&gt;" in (tmp_path / "out" / "report.html").read_text()


def test_the_table_tells_the_run_and_its_intervals(runs):
    grid = accuracy_grid(load_online_views(runs))
    assert grid.rows[0][:2] == ("one", "0.250\n[0.046, 0.699]")  # as sure as the items, the two seeds being alike
    assert grid.rows[0][4].startswith("+0.750")
    assert grid.rows[1][4].startswith("−0.750")
    by_type = group_grid(load_online_views(runs), "by_type")
    assert by_type.columns == ("run", "a", "b")
    assert by_type.rows[1][1].endswith("−1.000")


def test_types_one_after_another_have_a_picture_and_a_column(tmp_path):
    one = write_online_log(tmp_path / "one", {0: RISING, 1: RISING}, types="aabb")
    two = write_online_log(tmp_path / "two", {0: FALLING}, types="aabb")
    write_online_report({"one": one, "two": two}, tmp_path / "out")
    assert (tmp_path / "out" / "types.png").exists()
    views = load_online_views({"one": one, "two": two})
    figure = draw_types(views)
    assert [axes.get_title() for axes in figure.axes] == ["a", "b"]
    assert [list(line.get_ydata()) for line in figure.axes[0].lines] == [[0.0, 0.5, 1.0], [1.0, 0.5, 0.0]]
    grid = accuracy_grid(views)
    assert grid.columns[5] == "backward transfer"
    assert [row[5].split("\n")[0] for row in grid.rows] == ["+0.500", "−0.500"]
    foreign = write_online_log(tmp_path / "foreign", {0: RISING}, types="aacc")  # c has no held-out problem
    write_online_report({"foreign": foreign}, tmp_path / "foreign" / "out")
    assert not (tmp_path / "foreign" / "out" / "types.png").exists()
    mixed = write_online_log(tmp_path / "mixed", {0: RISING})
    write_online_report({"one": one, "mixed": mixed}, tmp_path / "other")
    assert not (tmp_path / "other" / "types.png").exists()


def test_the_panels(runs):
    views = load_online_views(runs)
    assert [len(draw(views).axes) for draw in (draw_six, draw_twelve)] == [6, 12]
    assert [axes.get_title() for axes in draw_twelve(views).axes] == [title for title, _ in PANELS]
    curve = draw_learning(views[:1]).axes[0]
    assert list(curve.lines[0].get_ydata()) == [0.25, 0.75, 1.0]
    final = draw_six(views).axes[0]
    assert [bar.get_height() for bar in final.patches] == [1.0, 0.0]
    assert not draw_twelve(views).axes[8].texts  # all were answered again
    memory = draw_twelve(views).axes[10]
    assert [bar.get_height() for bar in memory.patches] == [1.0, 0.0]


def test_a_run_without_an_episode_has_no_report(tmp_path):
    empty = write_online_log(tmp_path / "empty", {0: [[0, 0, 0, 0]]}, ended=False)
    with pytest.raises(ConfigError, match="report: the run has no episode yet"):
        write_online_report({"empty": empty}, tmp_path / "out")
    assert not (tmp_path / "out").exists()
