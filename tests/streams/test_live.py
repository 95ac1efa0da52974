"""Live rows: never further ahead than allowed, none lost or doubled by a kill, and a clean end."""

import itertools
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from everlearn.errors import ConfigError, StateError, StreamError
from everlearn.state import read_json
from everlearn.streams.arrivals import FileLines, Items, StandardInput
from everlearn.streams.checking import Rules
from everlearn.streams.labels import LabelBook
from everlearn.streams.live import LiveRows, arrivals_of, stop_on_signals
from support.live import keep_then_acknowledge, keep_with_position, wait_for_signal

PATIENCE_S = 120  # for one event, on a busy machine
N_APPENDED, N_KILLS = 150, 8
# writes rows in pieces, so that a reader meets lines that are not yet whole
APPEND = """
import json, sys, time
with open(sys.argv[1], "ab", buffering=0) as file:
    for number in range(int(sys.argv[2])):
        line = json.dumps({"prompt": f"row {number}", "completion": str(number)}).encode() + b"\\n"
        for piece in (line[:9], line[9:]):
            file.write(piece)
            time.sleep(0.004)
"""


def row(number: int) -> dict[str, str]:
    return {"prompt": f"row {number}", "completion": str(number)}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row(number)) + "\n" for number in range(5)))
    return path


@pytest.fixture(scope="module")
def server():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["everlearn.streams.live"])
    child = context.Process(target=abs, args=(0,))  # the server has imported everything when this one has run
    child.start()
    child.join(PATIENCE_S)
    return context


def start(server, target, *arguments):
    ours, theirs = server.Pipe(duplex=False)
    child = server.Process(target=target, args=(*arguments, theirs), daemon=True)
    child.start()
    theirs.close()
    return child, ours


def told(pipe):
    assert pipe.poll(PATIENCE_S), "the child says nothing"
    return pipe.recv()


def wait_until(holds) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.001)


def test_all_rows_of_a_file_come_in_order(file):
    with LiveRows(arrivals_of(file)) as rows:
        found = list(rows)
    assert [live.row["completion"] for live in found] == ["0", "1", "2", "3", "4"]
    assert [live.number for live in found] == [1, 2, 3, 4, 5]
    assert rows.ended == "end"
    assert list(rows) == []


@pytest.mark.parametrize("ahead", [1, 3])
def test_the_reader_is_never_further_ahead_than_allowed(ahead):
    n_made = 0

    def make():
        nonlocal n_made
        for number in itertools.count():
            n_made += 1
            yield row(number)

    with LiveRows(Items(make()), ahead=ahead) as rows:
        for n_taken in range(20):
            wait_until(lambda bar=n_taken + ahead: n_made == bar)
            time.sleep(0.002)  # time to go too far
            assert n_made == n_taken + ahead
            next(rows)


def test_it_goes_on_after_the_last_acknowledged_row(file, tmp_path):
    state_file = tmp_path / "rows.state"
    with LiveRows(FileLines(file), state_file=state_file) as rows:
        taken = [next(rows) for _ in range(4)]
        rows.acknowledge(taken[1])
    assert read_json(state_file) == taken[1].position == rows.position
    assert taken[1].position["offset"] == sum(len(line) for line in file.read_bytes().splitlines(True)[:2])
    with LiveRows(FileLines(file), state_file=state_file) as rows:
        assert [live.number for live in rows] == [3, 4, 5]
    with LiveRows(FileLines(file), position=taken[3].position) as rows:
        assert [live.number for live in rows] == [5]
    with LiveRows(Items(map(row, range(5))), position={"number": 4}) as rows:
        assert [live.row["completion"] for live in rows] == ["4"]


def test_rows_are_acknowledged_in_their_order(file):
    with LiveRows(FileLines(file)) as rows:
        first, second = next(rows), next(rows)
        rows.acknowledge(second)
        rows.acknowledge(second)
        with pytest.raises(StreamError, match=r"row 2 was acknowledged before\. Got 1"):
            rows.acknowledge(first)


def test_a_bad_row_is_named_with_file_line_and_reason(file):
    with file.open("a") as more:
        more.write('{"prompt": "x"\n{"prompt": "x"}\n["x"]\n\n' + json.dumps(row(5)) + "\n")
    with LiveRows(FileLines(file)) as rows:
        for _ in range(5):
            next(rows)
        with pytest.raises(StreamError, match=r"rows\.jsonl line 6: bad row: invalid JSON: Expecting .*\. Got b'"):
            next(rows)
    with LiveRows(FileLines(file), on_bad_row="skip") as rows, pytest.warns(match="skipped a bad row") as warned:
        assert [live.number for live in rows] == [1, 2, 3, 4, 5, 10]
    assert rows.n_bad == 3
    reasons = ("line 6: skipped a bad row: invalid JSON", "line 7: .*'completion' is missing", "line 8: .*list, not an")
    for warning, reason in zip(warned, reasons, strict=True):
        assert pytest.RaisesExc(UserWarning, match=reason).matches(warning.message)


def test_rows_of_another_kind_are_checked_by_their_rules():
    rules = Rules("classify", LabelBook(("bad", "good")))
    items = [{"text": "a", "label": "good"}, {"text": "b", "label": "fine"}, 3]
    with LiveRows(Items(items), rules=rules) as rows:
        assert next(rows).row["label"] == 1
        with pytest.raises(StreamError, match=r"rows row 2: bad row: .*'fine'"):
            next(rows)
        with pytest.raises(StreamError, match=r"rows row 3: bad row: int, not an object with columns\. Got 3"):
            next(rows)


def test_what_goes_wrong_in_an_iterator_is_raised_where_rows_are_taken():
    def make():
        yield row(0)
        raise ZeroDivisionError("in the middle")

    with LiveRows(Items(make())) as rows:
        next(rows)
        with pytest.raises(ZeroDivisionError, match="in the middle"):
            next(rows)
        assert list(rows) == []


def test_a_followed_file_without_news_ends_when_idle(file):
    with file.open("a") as more:
        more.write('{"prompt": "not yet')
    with LiveRows(FileLines(file, follow=True, poll_s=0.001), idle_s=0.3) as rows:
        assert [live.number for live in rows] == [1, 2, 3, 4, 5]
    assert rows.ended == "idle"


def test_standard_input_is_a_source(monkeypatch):
    receiver, sender = os.pipe()
    os.write(sender, (json.dumps(row(0)) + "\n").encode())
    with os.fdopen(receiver) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        with LiveRows(arrivals_of("-")) as rows:
            assert next(rows).row == {**row(0), "choices": None}
            os.close(sender)
            assert list(rows) == []


def test_stopped_it_ends_at_once_and_what_was_read_ahead_comes_again(file):
    with LiveRows(FileLines(file, follow=True)) as rows:
        rows.acknowledge(next(rows))
        rows.stop()
        assert list(rows) == []
    assert rows.ended == "stopped"
    with LiveRows(FileLines(file), position=rows.position) as rows:
        assert [live.number for live in rows] == [2, 3, 4, 5]


def test_handlers_of_signals_are_put_back(file):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with LiveRows(FileLines(file)) as rows, stop_on_signals(rows):
        os.kill(os.getpid(), signal.SIGTERM)
        assert list(rows) == []
        assert rows.ended == "stopped"
        assert signal.getsignal(signal.SIGTERM) == before[1]  # a second one acts as before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_process_that_waits_for_rows(number, server, file):
    child, pipe = start(server, wait_for_signal, file)
    assert [told(pipe) for _ in range(5)] == [1, 2, 3, 4, 5]
    os.kill(child.pid, number)
    assert told(pipe) == "stopped"
    child.join(PATIENCE_S)
    assert child.exitcode == 0


@pytest.mark.parametrize("reader", [keep_with_position, keep_then_acknowledge], ids=lambda reader: reader.__name__)
def test_killed_while_a_process_appends_it_loses_and_doubles_no_row(reader, server, tmp_path):
    choose = random.Random(reader.__name__)
    path = tmp_path / "rows.jsonl"
    path.touch()
    appender = subprocess.Popen([sys.executable, "-c", APPEND, str(path), str(N_APPENDED)])
    for n_kills in itertools.count():
        child, pipe = start(server, reader, path, tmp_path, N_APPENDED - 1)
        n_events = choose.randint(1, 15) if n_kills < N_KILLS else 10**6
        if any(told(pipe) == "done" for _ in range(n_events)):
            break
        time.sleep(choose.random() * 0.01)  # into what follows the event
        os.kill(child.pid, signal.SIGKILL)
        child.join(PATIENCE_S)
    child.join(PATIENCE_S)
    assert appender.wait(PATIENCE_S) == 0
    assert n_kills == N_KILLS
    if reader is keep_with_position:
        assert read_json(tmp_path / "learned.json")["ids"] == list(range(N_APPENDED))
    else:  # noted, then killed before it was acknowledged: that one comes twice, and no other
        ids = [int(line) for line in (tmp_path / "ids").read_text().split()]
        assert [number for number, _ in itertools.groupby(ids)] == list(range(N_APPENDED))
        assert len(ids) - N_APPENDED <= N_KILLS


def test_sources_are_told_by_what_they_are(tmp_path):
    assert arrivals_of(tmp_path / "a.jsonl", follow=True) == FileLines(tmp_path / "a.jsonl", follow=True)
    assert isinstance(arrivals_of("-"), StandardInput)
    assert isinstance(arrivals_of([row(0)]), Items)
    for data in ("-", [row(0)]):
        with pytest.raises(ConfigError, match=r"live\.follow: has nothing to follow"):
            arrivals_of(data, follow=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ahead": 0}, r"live\.ahead: is out of range. Got 0"),
        ({"idle_s": 0}, r"live\.idle_s: is out of range. Got 0"),
        ({"on_bad_row": "skipp"}, "Did you mean 'skip'"),
    ],
)
def test_a_bad_option_is_named_with_its_value(options, message, file):
    with pytest.raises(ConfigError, match=message):
        LiveRows(FileLines(file), **options)


def test_a_state_file_must_be_readable_and_stand_alone(file, tmp_path):
    state_file = tmp_path / "rows.state"
    with pytest.raises(ConfigError, match=r"live\.position: stands beside state_file"):
        LiveRows(FileLines(file), state_file=state_file, position={"number": 1})
    state_file.write_text('{"number": 1')
    with pytest.raises(StateError, match=r"rows\.state: can't be read"):
        LiveRows(FileLines(file), state_file=state_file)
