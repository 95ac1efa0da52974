"""Make the pocket model from nothing: tokenizer, training loop, resume, export."""

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from everlearn.models.pocket.batches import Batch, opened_windows
from everlearn.models.pocket.checkpoint import load_run, save_run
from everlearn.models.pocket.network import build_network, build_optimizers
from everlearn.models.pocket.recipe import PocketRecipe, load_pocket_recipe
from everlearn.models.pocket.scoring import score_families
from everlearn.models.pocket.tokenizer import train_tokenizer
from everlearn.models.pocket.training import Position, train_step
from everlearn.state import make_folder, write_json

LOG_EVERY_STEPS = 50
AHEAD = 2  # windows that are asked for before they are needed, for each process that draws them


@dataclass
class Pretraining:
    """One run under way in the folder `out`."""

    recipe: PocketRecipe
    tokenizer: PreTrainedTokenizerFast
    model: LlamaForCausalLM
    optimizers: list[torch.optim.Optimizer]
    position: Position
    out: Path
    quiet: bool
    processes: int = 0

    def run(self, max_steps: int | None) -> None:
        """Train until all tokens, or `max_steps` in all, are done; save now and then and at the end."""
        position, console = self.position, Console()
        started = saved = time.monotonic()
        before_s = position.train_s
        columns = (TextColumn("pretrain"), BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        with Progress(*columns, console=console, disable=self.quiet) as bar:
            shown = bar.add_task("", total=self.recipe.total_tokens)
            for batch in self.batches(max_steps):
                loss = train_step(self.recipe, self.model, self.optimizers, batch, position)
                position.step, position.batch = position.step + 1, position.batch + 1
                position.n_tokens += batch.n_tokens
                position.train_s = before_s + time.monotonic() - started
                text = f"step {position.step} loss {loss:.3f}"
                bar.update(shown, completed=position.n_tokens, description=text)
                if not self.quiet and position.step % LOG_EVERY_STEPS == 0:
                    self.log(loss, console)
                if time.monotonic() - saved > self.recipe.save_every_s:
                    self.save()
                    saved = time.monotonic()
        self.save()

    def batches(self, max_steps: int | None) -> Iterator[Batch]:
        """Yield the batches from the run's position on; the position moves to a new window when one is used up."""
        position = self.position
        n_missing = AHEAD * self.processes - len(position.ahead)
        position.ahead += [position.progress] * n_missing
        with opened_windows(self.tokenizer, self.recipe, self.processes) as windows:
            while True:
                for number, progress in enumerate((position.progress, *position.ahead), start=position.window):
                    windows.ask(number, progress)
                for batch in windows.take(position.window, position.progress)[position.batch :]:
                    if position.n_tokens >= self.recipe.total_tokens or position.step == max_steps:
                        return
                    yield batch
                position.window, position.batch = position.window + 1, 0
                position.ahead.append(position.n_tokens / self.recipe.total_tokens)
                position.progress = position.ahead.pop(0)

    def log(self, loss: float, console: Console) -> None:
        """Print a line and add it to log.json, with the families' scores now and then."""
        position = self.position
        row = {"step": position.step, "tokens": position.n_tokens, "s": round(position.train_s, 1), "loss": loss}
        if position.step % self.recipe.score_every_steps == 0:
            row["scores"] = score_families(self.model, self.tokenizer, self.recipe.score_items, self.recipe.seed)
        position.log.append(row)
        console.print(row)
        write_json(self.out / "log.json", position.log)

    def save(self) -> None:
        """Write a checkpoint."""
        save_run(self.out / "checkpoints", self.model, self.optimizers, self.recipe, self.position)


def pretrain(recipe: Path, out: Path, *, max_steps: int | None = None, quiet: bool = False, processes: int = 0) -> Path:
    """Train the pocket model of a recipe in the folder `out`, from where an earlier call stopped.

    The loss is Σ w·(-log p(token)) / Σ w over a batch, with w = 1 for answer tokens and `prompt_weight` for the others.

    Args:
        recipe: the YAML file, see `PocketRecipe`.
        out: gets `tokenizer/`, `checkpoints/`, `log.json` and, at the end, `model/`.
        max_steps: stop, with a checkpoint, when this many steps are done in all.
        quiet: no progress bar, no log, no scores.
        processes: how many draw the documents ahead of a GPU that would wait for them; 0: none, each window is drawn
            when it is needed. Windows drawn ahead have the levels of the moment they were asked for.

    Returns:
        The folder of the model as it is now, which transformers loads.

    Raises:
        ConfigError: if the recipe is wrong.
        StateError: if `out` holds a run of another recipe, or can't be written.
        TrainingError: if the loss is not finite.

    Cost: see the recipe's header. A GPU is used if there is one.
    """
    settings, out = load_pocket_recipe(recipe), Path(out)
    make_folder(out)
    tokenizer = _tokenizer(settings, out / "tokenizer")
    model = build_network(settings, tokenizer).to("cuda" if torch.cuda.is_available() else "cpu")
    optimizers = build_optimizers(settings, model)
    position = load_run(out / "checkpoints", model, optimizers, settings) or Position()
    Pretraining(settings, tokenizer, model, optimizers, position, out, quiet, processes).run(max_steps)
    return export(model, tokenizer, out / "model")


def _tokenizer(recipe: PocketRecipe, folder: Path) -> PreTrainedTokenizerFast:
    """Return the run's tokenizer: learned when the run starts, read from its folder from then on."""
    if not (folder / "tokenizer.json").exists():
        learned = train_tokenizer(recipe.vocabulary_size, recipe.tokenizer_documents, recipe.seed)
        aside = folder.with_name("tokenizer.new")
        learned.save_pretrained(str(aside))
        os.replace(aside, folder)
    return PreTrainedTokenizerFast.from_pretrained(str(folder))


def export(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    """Write weights (bfloat16), configuration and tokenizer as a folder that transformers loads; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items()}
    model.save_pretrained(str(folder), state_dict=weights)
    tokenizer.save_pretrained(str(folder))
    return folder


def main() -> None:
    """Run `pretrain` from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=0, help="that draw documents ahead")
    arguments = parser.parse_args()
    print(pretrain(arguments.recipe, arguments.out, processes=arguments.processes))


if __name__ == "__main__":
    main()
