"""A watched folder: the lines of its files, one file after another by name, and of those that are laid there later."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from everlearn.errors import StreamError, describe
from everlearn.streams.arrivals import Arrival, FileLines, Position, Waiter

SUFFIX = ".jsonl"


@dataclass(frozen=True)
class FolderLines:
    """The lines of a folder's .jsonl files, in the order of their names. Names that begin with a dot are left out, so
    that a file can be written under such a name and then renamed.

    Args:
        follow: after the last file wait for its lines and for files to come. Their names must sort behind those read:
            begin them with a date, say. A file is whole once there is one behind it.
        poll_s: seconds between two looks.
    """  # fmt: skip

    path: Path
    follow: bool = False
    poll_s: float = 0.2
    unit: str = field(default="line", init=False)
    can_be_woken: bool = field(default=True, init=False)

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.path)

    def read(self, position: Position | None, waiter: Waiter) -> Iterator[Arrival]:
        """Yield the lines after `position`, counted over all files.

        Raises:
            StreamError: if the folder can't be read, a file of it changed while it was read, or a new one's name sorts
                before the one that was read last.
        """
        number = position["number"] if position else 0
        name, inside = (position["file"], position["inside"]) if position else ("", None)
        n_before = position["n_files"] if position else 0  # files whose names sort before the present one
        while not waiter.wait(0):
            names = self._names()
            self._check_order(names, name, n_before)
            if inside is None:  # go to the next file
                later = [one for one in names if one > name]
                if not later:
                    if not self.follow or waiter.wait(self.poll_s):
                        return
                    continue
                name, n_before = later[0], len(names) - len(later)
            lines = FileLines(self.path / name, self.follow, self.poll_s, lambda name=name: self._is_followed_by(name))
            for arrival in lines.read(inside, waiter):
                number += 1
                place = {"number": number, "file": name, "inside": arrival.position, "n_files": n_before}
                yield Arrival(number, arrival.raw, place)
            inside = None

    def _names(self) -> list[str]:
        try:
            found = [entry.name for entry in self.path.iterdir() if entry.suffix == SUFFIX and entry.name[0] != "."]
        except OSError as error:
            what = f"can't be read ({error.strerror})"
            raise StreamError(describe(self.name, what, self.path.name, "Check the path")) from error
        return sorted(found)

    def _is_followed_by(self, name: str) -> bool:
        names = self._names()
        return bool(names) and names[-1] > name

    def _check_order(self, names: list[str], last: str, n_before: int) -> None:
        """Raise StreamError where there are files before the last that was read which weren't there then."""
        before = [one for one in names if one < last]
        if last and len(before) > n_before:
            way_out = "Name new files so that they sort last (with a date in front, say), and lay this one down anew"
            what = f"a file came whose name sorts before {last!r}, which was read already"
            raise StreamError(describe(self.name, what, before[-5:], way_out))
