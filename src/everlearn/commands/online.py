"""The command for learning online: from its options to an online recipe."""

from pathlib import Path
from typing import Annotated, Any

import typer

from everlearn.commands.runs import run_and_show
from everlearn.errors import ConfigError, describe


def online(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe (YAML); the options change it.")] = None,
    out: Annotated[Path, typer.Option(help="Folder that the results go to.")] = Path("runs/online"),
    model: Annotated[
        str | None, typer.Option(help="pocket, smollm2, a folder, a GGUF file, a hub id (default: pocket)")
    ] = None,
    episodes: Annotated[int | None, typer.Option(help="Problems to learn from (default: 80)")] = None,
    eval_tasks: Annotated[int | None, typer.Option(help="Held-out problems (default: 200)")] = None,
    eval_interval: Annotated[int | None, typer.Option(help="Episodes between two scorings (default: 20)")] = None,
    lora_r: Annotated[int | None, typer.Option(help="Rank of the LoRA (default: 16)")] = None,
    lora_alpha: Annotated[float | None, typer.Option(help="Its alpha (default: twice the rank)")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate (default: by the model)")] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Half precision; needs a GPU.")] = False,
    soft_tokens: Annotated[
        int | None, typer.Option(help="Learn a soft prompt of so many vectors; with --lora-r beside the LoRA.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="A JSONL file to learn from, or - for standard input.")] = None,
    held_out: Annotated[str | None, typer.Option(help="With --data: a JSONL file that is never learned from.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for lines that are added to the file.")] = False,
    curriculum: Annotated[str | None, typer.Option(help="none, ramp, success, progress (default: none)")] = None,
    strategies: Annotated[str | None, typer.Option(help="Such as replay,ewc.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights and problems (default: 0).")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change a value of the recipe: source.difficulty=1.")
    ] = None,
) -> None:
    """Answer one problem after another, learn from each right answer, and see held-out ones get better."""
    from everlearn.config import read_yaml
    from everlearn.kinds.online import load_online_recipe
    from everlearn.kinds.online.kind import Online

    content = read_yaml(recipe) if recipe is not None else {}
    _put(content, ("model", "name"), model)
    _put(content, ("episodes",), episodes)
    _put(content, ("evaluation", "n"), eval_tasks)
    _put(content, ("evaluation", "interval"), eval_interval)
    _put(content, ("learner", "learning_rate"), lr)
    _put(content, ("learner", "precision"), "fp16" if fp16 else None)
    _put(content, ("model", "adapter", "rank"), lora_r)
    _put(content, ("model", "adapter", "alpha"), lora_alpha)
    _put_adapter(content, lora_r is not None or lora_alpha is not None, soft_tokens)
    _put_rows(content, data, held_out, follow)
    if curriculum is not None:
        _put(content, ("source", "curriculum"), {"name": curriculum})
    if strategies is not None:
        content["strategies"] = [name.strip() for name in strategies.split(",") if name.strip()]
    if seed is not None:
        content.pop("seeds", None)
        content["seed"] = seed
    run_and_show(Online, load_online_recipe(content, settings or ()), out)


def _put_adapter(content: dict[str, Any], with_lora: bool, soft_tokens: int | None) -> None:
    """Choose the adapter that the options speak of, where the recipe names none that has it all."""
    named = _get(content, "model", "adapter", "name")
    if soft_tokens is not None:
        with_lora = with_lora or named == "lora_prompt"
        if named != "prefix" or with_lora:
            _put(content, ("model", "adapter", "name"), "lora_prompt" if with_lora else "prompt")
        _put(content, ("model", "adapter", "soft_tokens"), soft_tokens)
    elif with_lora and named not in (None, "lora", "lora_prompt"):
        way_out = "Leave --lora-r and --lora-alpha out, or choose lora or lora_prompt"
        raise ConfigError(describe("model.adapter.name", "has no LoRA", named, way_out))


def _put_rows(content: dict[str, Any], data: str | None, held_out: str | None, follow: bool) -> None:
    """Let the problems come from a file; what the recipe says of such rows besides stays."""
    is_rows = _get(content, "source", "name") == "rows"
    if data is None and not is_rows:
        for option, value in (("--held-out", held_out), ("--follow", follow or None)):
            if value is not None:
                raise ConfigError(describe(option, "needs rows to learn from", value, "Name them with --data"))
        return
    if data is not None:
        content["source"] = {**(content["source"] if is_rows else {"name": "rows"}), "path": data}
    _put(content, ("source", "held_out_path"), held_out)
    _put(content, ("source", "follow"), follow or None)


def _get(content: Any, *path: str) -> Any:
    """Return a value of a recipe's mapping, or None where there is none."""
    for key in path:
        content = content.get(key) if isinstance(content, dict) else None
    return content


def _put(content: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Set a value of a recipe's mapping, where one was given."""
    if value is None:
        return
    place = content
    for key in path[:-1]:
        if place.get(key) is None:
            place[key] = {}
        place = place[key]
        if not isinstance(place, dict):
            raise ConfigError(describe(key, "must be a mapping", place, f"Write {'.'.join(path)} in the recipe"))
    place[path[-1]] = value
