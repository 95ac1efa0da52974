"""Readers of live rows that run in their own process."""

from multiprocessing.connection import Connection
from pathlib import Path

from everlearn.state import read_json, write_json
from everlearn.streams.arrivals import FileLines
from everlearn.streams.live import LiveRows, stop_on_signals


def keep_with_position(path: Path, folder: Path, last: int, pipe: Connection) -> None:
    """Follow a file until row `last`; what was learned (the rows' ids) and the position are one file."""
    kept = folder / "learned.json"
    learned = read_json(kept) if kept.exists() else {"ids": [], "position": None}
    with LiveRows(FileLines(path, follow=True, poll_s=0.005), ahead=3, position=learned["position"]) as rows:
        for live in rows:
            pipe.send("taken")
            rows.acknowledge(live)
            learned = {"ids": [*learned["ids"], int(live.row["completion"])], "position": rows.position}
            write_json(kept, learned)
            if learned["ids"][-1] == last:
                break
    pipe.send("done")


def keep_then_acknowledge(path: Path, folder: Path, last: int, pipe: Connection) -> None:
    """Follow a file until row `last`; an id is noted in one file, and then its row acknowledged in another."""
    arrivals = FileLines(path, follow=True, poll_s=0.005)
    with LiveRows(arrivals, ahead=3, state_file=folder / "rows.state") as rows, (folder / "ids").open("a") as ids:
        for live in rows:
            pipe.send("taken")
            ids.write(f"{live.row['completion']}\n")
            ids.flush()
            rows.acknowledge(live)
            if int(live.row["completion"]) == last:
                break
    pipe.send("done")


def wait_for_signal(path: Path, pipe: Connection) -> None:
    """Take all rows of a followed file, then wait; tell how that ended."""
    with LiveRows(FileLines(path, follow=True)) as rows, stop_on_signals(rows):
        for live in rows:
            pipe.send(live.number)
    pipe.send(rows.ended)
