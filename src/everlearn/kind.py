"""What a kind of run brings to the frame of `everlearn.runs`, which owns folder, seeds, saving, pauses and results.

    kind = Kind(recipe, out, listener)
    made_of = kind.open(accelerator)              # data and model read and checked; nothing is written
    kind.begin(made_of)                           # first lines of its logs; going on, these are cut to the checkpoint
    for seed in recipe.all_seeds():
        one = kind.start(seed, saving, accelerator)      # who learns: tells its `state()`
        kind.learn(one, resumed=...)                     # saves through `saving`, which pauses
        final/seed-N <- one.state()
    results.json <- kind.summarise()
    kind.draw({name: folder}, out)                # one run, or several side by side

`Folder` is what the command line asks of whatever one can go on with: runs, and a model home, which is none.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from accelerate import Accelerator

from everlearn.config import CheckpointConfig, from_mapping, read_yaml
from everlearn.errors import ConfigError, StateError, describe
from everlearn.listener import Listener
from everlearn.models.load import ModelConfig
from everlearn.provenance import Provenance
from everlearn.record import JsonLines
from everlearn.saving import Saving
from everlearn.state import read_json, write_json

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

RECIPE, RESULTS = "recipe.yaml", "results.json"
MADE_OF = "made_of.json"  # a run's `Provenance`, where its log doesn't hold it


class Folder:
    """What holds something that was begun: it is known by its files, gone on with, and looked at.

    Attributes:
        recipe_type: dataclass of the recipe that begins it; None where none does.
    """

    name: ClassVar[str] = ""  # set by `register`
    recipe_type: ClassVar[type | None] = None

    @classmethod
    def reference(cls) -> str:
        """Return what a recipe's `kind:` says: the name, or package.module:Class of a kind from outside."""
        inside = cls.__module__.startswith("everlearn.")
        return cls.name if inside else f"{cls.__module__}:{cls.__qualname__}"

    @classmethod
    def holds(cls, folder: Path) -> bool:
        """Tell whether a folder is one of these."""
        raise NotImplementedError

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Any:
        """Return the recipe that a mapping gives, read strictly."""
        if cls.recipe_type is None:
            raise ConfigError(describe("kind", "isn't begun by a recipe", cls.name, "See: everlearn ls kinds"))
        return from_mapping(cls.recipe_type, content, "")

    @classmethod
    def run(cls, recipe: Any, out: Path, listener: Listener) -> Any:
        """Do what a recipe says, in the folder `out`; return what came of it."""
        raise NotImplementedError

    @classmethod
    def resume(cls, folder: Path, listener: Listener) -> Any:
        """Go on with what was paused or killed, to the same end as if it never stopped; return what came of it."""
        raise NotImplementedError

    @classmethod
    def draw(cls, folders: Mapping[str, Path], out: Path) -> list["RenderableType"]:
        """Write the report of one or several, {name: folder}, into `out`; return what a terminal shows of it."""
        where, got = f"compare: {cls.name}", list(map(str, folders.values()))
        raise ConfigError(describe(where, "isn't drawn beside others", got, "Name folders of runs"))

    @classmethod
    def bars(cls, console: "Console", title: str = "") -> AbstractContextManager[Listener]:
        """Return a listener that draws progress."""
        from everlearn.report.progress import ProgressBars

        return ProgressBars(console, title)

    @classmethod
    def finish(cls, folder: Path, came_of: Any, listener: Listener, console: "Console") -> int:
        """Show what came of it in a terminal; return the exit code."""
        for one in cls.draw({folder.resolve().name: folder}, folder):
            console.print(one, highlight=False)
        return 0


def read_results(folder: Path) -> dict[str, Any]:
    """Return the content of a run's results.json.

    Raises:
        StateError: if it is damaged.
    """
    path, way_out = folder / RESULTS, f"Delete it, then: everlearn resume {folder}"
    content = read_json(path, way_out)
    if not isinstance(content, dict) or "complete" not in content:
        raise StateError(describe(str(path), "is not what a run writes", content, way_out))
    return content


class RunRecipe(Protocol):
    """What the frame reads of a recipe."""

    model: ModelConfig
    device: str
    checkpoint: CheckpointConfig
    track: list[str]

    def all_seeds(self) -> list[int]:
        """Return the seeds to run, one after another."""


class Learning(Protocol):
    """Who learns a seed."""

    def state(self) -> dict[str, Any] | None:
        """Return what was learned, tensors and JSON; None where nothing is to be kept."""


class RunKind(Folder):
    """Base of the kinds of run. One object leads one run.

    Attributes:
        recipe_type: has what `RunRecipe` says.
        log_names: files that it writes line by line; `logs` opens them.
        one_process: whether `torchrun` may not start several.
    """

    log_names: ClassVar[tuple[str, ...]] = ()
    one_process: ClassVar[bool] = True

    def __init__(self, recipe: Any, out: Path, listener: Listener):
        self.recipe, self.out, self.listener = recipe, out, listener
        self.logs: dict[str, JsonLines] = {}
        self.env: dict[str, Any] = {}  # what it runs on (`everlearn.record.environment`)

    @classmethod
    def tells(cls, content: Mapping[str, Any]) -> bool:
        """Tell whether a recipe that names no kind is of this one."""
        return False

    @classmethod
    def write(cls, recipe: Any) -> dict[str, Any]:
        """Return the mapping that `read` gives the recipe of."""
        raise NotImplementedError

    @classmethod
    def recipe_file(cls, folder: Path) -> Path:
        """Return where a run's folder holds its recipe."""
        return folder / RECIPE

    @classmethod
    def holds(cls, folder: Path) -> bool:
        return cls.recipe_file(folder).is_file() and cls.is_of(read_yaml(cls.recipe_file(folder)))

    @classmethod
    def is_of(cls, content: Mapping[str, Any]) -> bool:
        """Tell whether a recipe's content is of this kind: it says so, or names none and tells by its keys."""
        named = content.get("kind")
        return named == cls.reference() or (named is None and cls.tells(content))

    def devices(self) -> dict[str, Any]:
        """Return what `start_accelerator` is asked for beside folder and trackers."""
        return {"device": self.recipe.device}

    def open(self, accelerator: Accelerator) -> Provenance:
        """Read and check what is learned from, for all seeds; return what the run is made of."""
        raise NotImplementedError

    def begun(self) -> Provenance | None:
        """Return what the run was made of when it began; None where it wasn't written down."""
        path = self.out / MADE_OF
        return Provenance.read(read_json(path), str(path)) if path.exists() else None

    def begin(self, made_of: Provenance) -> None:
        """Write what the run is made of, and the first lines of the logs. Only the first process calls it."""
        write_json(self.out / MADE_OF, asdict(made_of))

    def start(self, seed: int, saving: Saving, accelerator: Accelerator) -> Learning:
        """Return who learns a seed, at its beginning."""
        raise NotImplementedError

    def learn(self, one: Learning, *, resumed: bool) -> None:
        """Learn a seed, from the start or from its newest checkpoint.

        Raises:
            Paused: after SIGINT, the state saved. TrainingError: if the loss is not finite.
        """
        raise NotImplementedError

    def summarise(self) -> dict[str, Any]:
        """Return the content of results.json: JSON with `complete`."""
        raise NotImplementedError

    def keep_length(self, saving: Saving) -> None:
        """Note how long the logs are: what is written from here on is written again after a stop."""
        saving.context["n_bytes"] = {name: log.n_bytes() for name, log in self.logs.items()}
