import re
from html.parser import HTMLParser

import pytest

from everlearn.errors import StateError
from everlearn.report.html import write_report

EVIL = ["<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "$x_1$ ${body} & |", "任务一", "n" * 120]


class Tags(HTMLParser):
    """Collects tags and attributes, and checks that tags close in order."""

    VOID = ("meta", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(folder) -> tuple[str, Tags]:
    page = (folder / "report.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    return page, tags


def test_the_page_stands_alone(make_run, tmp_path):
    runs = {"plain": make_run("plain", ["a", "b"]), "cure": make_run("cure", ["a", "b"], forget=0.0)}
    write_report(runs, tmp_path / "report")
    page, tags = parsed(tmp_path / "report")
    sources = [attrs["src"] for tag, attrs in tags.found if tag == "img"]
    assert len(sources) == 5
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.search(r"https?://|url\(|@import", page)
    assert {tag for tag, _ in tags.found}.isdisjoint({"script", "link", "iframe", "a"})
    assert "Paired comparison" in page
    assert "cure − plain" in page


def test_hostile_names_are_text(make_run, tmp_path):
    runs = {name: make_run(f"run{i}", EVIL, n=10) for i, name in enumerate(EVIL[:3])}
    write_report(runs, tmp_path / "report")
    page, tags = parsed(tmp_path / "report")
    assert {tag for tag, _ in tags.found}.isdisjoint({"script", "iframe"})
    assert not any("onerror" in attrs for _, attrs in tags.found)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "任务一" in page
    assert "${body}" in page
    markdown = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "<script>" not in markdown
    assert "<img" not in markdown


def test_markdown_names_pictures_that_are_there(make_run, tmp_path):
    write_report({"plain": make_run("plain", ["a", "b"])}, tmp_path / "deep" / "report")
    out = tmp_path / "deep" / "report"
    markdown = (out / "report.md").read_text(encoding="utf-8")
    pictures = re.findall(r"\]\(([^)]+)\)", markdown)
    assert pictures
    assert all((out / picture).is_file() for picture in pictures)
    assert "| plain |" in markdown


def test_many_tasks_and_seeds(make_run, tmp_path):
    write_report({"long": make_run("long", [f"task{i}" for i in range(20)], seeds=5, n=5)}, tmp_path / "report")
    page, _ = parsed(tmp_path / "report")
    assert "20 tasks, 5 seeds" in page
    assert "over seeds" in page


def test_a_damaged_run_writes_nothing(make_run, tmp_path):
    folder = make_run("bad", ["a"])
    with (folder / "results.jsonl").open("a", encoding="utf-8") as log:
        log.write('{"type": "score"')
    with pytest.raises(StateError, match="line 5"):
        write_report({"bad": folder}, tmp_path / "report")
    assert not (tmp_path / "report").exists()
