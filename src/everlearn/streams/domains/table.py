"""What the table of a named stream says of a task: where its rows are, how they are read, whose they are."""

from collections.abc import Mapping
from dataclasses import dataclass, field

HUB_EXPORT = "refs/convert/parquet"  # the branch where the hub keeps each data set as Parquet


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One task of a named stream.

    Args:
        hub: id of a data set on the hub; None: none is known, so that it comes from a folder alone.
        config: its configuration.
        exported: the repository holds a loading script, which `datasets` runs no more: its Parquet export is read.
        splits: role (train, evaluation, validation) -> the hub's split.
        folders: names that the task's folder may have beside the task's own, as it is published.
        columns: our column -> theirs: of these names, or templates such as "{question} {answer}", the first that is
            there counts. Where none is there, the rows have ours.
        labels: names of the classes or tags in the order of their numbers, where the data doesn't name them.
        where: column -> value: rows with another aren't the task's.
        values: label as the data writes it -> ours, where it comes from a column of theirs.
        types: entity type of the data -> ours; all other types become O. Empty: as they are.
        metrics: as in `Task`; the first fills the matrix.
        licence, source: what is known of them.
        remark: what differs from the published task, or wasn't checked.
    """

    hub: str | None = None
    config: str | None = None
    exported: bool = False
    splits: Mapping[str, str] = field(default_factory=lambda: {"train": "train", "evaluation": "test"})
    folders: tuple[str, ...] = ()
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    where: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    licence: str = ""
    source: str = ""
    remark: str = ""

    def makes_rows(self, columns: Mapping[str, str]) -> bool:
        """Tell whether rows must be made of the data's; columns: ours -> the column or template that it has."""
        values = self.values and "label" in columns
        return bool(self.where or self.types or values) or any("{" in own for own in columns.values())

    def hub_name(self) -> str:
        """Return its id on the hub with the configuration, or that it has none."""
        if self.hub is None:
            return "no hub id"
        return f"{self.hub} {self.config}" if self.config else self.hub
