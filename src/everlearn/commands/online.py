"""The command for learning online: from its options to an online recipe."""

from pathlib import Path
from typing import Annotated, Any

import typer

from everlearn.commands.runs import run_and_show
from everlearn.errors import ConfigError, describe

TOPIC = "kafka://"


def online(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="A recipe (YAML), which the options change; or what to learn from, as with --data.",
            metavar="[RECIPE or ROWS]",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder that the results go to.")] = Path("runs/online"),
    model: Annotated[
        str | None, typer.Option(help="pocket, smollm2, a folder, a GGUF file, a hub id (default: pocket)")
    ] = None,
    episodes: Annotated[
        int | None, typer.Option(help="Rows to learn from (default: 80 problems, all labelled rows)")
    ] = None,
    eval_tasks: Annotated[int | None, typer.Option(help="Held-out problems (default: 200)")] = None,
    eval_interval: Annotated[
        int | None, typer.Option(help="Rows between two scorings (default: 20, of labelled rows 100)")
    ] = None,
    lora_r: Annotated[int | None, typer.Option(help="Rank of the LoRA (default: 16)")] = None,
    lora_alpha: Annotated[float | None, typer.Option(help="Its alpha (default: twice the rank)")] = None,
    lr: Annotated[str | None, typer.Option(help="Learning rate: a number, auto or adaptive (default: auto)")] = None,
    batch_size: Annotated[int | None, typer.Option(help="New rows in a step (default: 1)")] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Half precision; needs a GPU.")] = False,
    soft_tokens: Annotated[
        int | None, typer.Option(help="Learn a soft prompt of so many vectors; with --lora-r beside the LoRA.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="What to learn from: a JSONL file, a folder of them, - for standard input, or kafka://HOST:PORT/TOPIC."
        ),
    ] = None,
    held_out: Annotated[
        str | None, typer.Option(help="Of prompts, with --data: a JSONL file that is never learned from.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Wait for lines that are added, or files in the folder.")
    ] = False,
    curriculum: Annotated[str | None, typer.Option(help="none, ramp, success, progress (default: none)")] = None,
    strategies: Annotated[str | None, typer.Option(help="Such as replay,ewc.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights and problems (default: 0).")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change a value of the recipe: source.difficulty=1.")
    ] = None,
) -> None:
    """Answer one row after another and learn from each right answer.

    Of problems, held-out ones get better; rows with labels or tags are scored as they come, before they are learned.
    """
    import yaml

    from everlearn.config import read_yaml
    from everlearn.kinds.online import load_online_recipe
    from everlearn.kinds.online.kind import Online

    is_recipe = recipe is not None and Path(recipe).suffix.lower() in (".yaml", ".yml")
    if recipe is not None and not is_recipe:
        if data is not None:
            raise ConfigError(describe("--data", "rows are named twice", [recipe, data], "Name them once"))
        recipe, data = None, recipe
    content = read_yaml(Path(recipe)) if recipe is not None else {}
    _put(content, ("model", "name"), model)
    _put(content, ("episodes",), episodes)
    _put(content, ("evaluation", "n"), eval_tasks)
    _put(content, ("evaluation", "interval"), eval_interval)
    _put(content, ("learner", "learning_rate"), None if lr is None else yaml.safe_load(lr))
    _put(content, ("learner", "batch_size"), batch_size)
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
    """Let the rows come from a file, a folder, standard input or a topic; what the recipe says of such rows stays."""
    named = _get(content, "source", "name")
    if data is None and named not in ("rows", "kafka"):
        for option, value in (("--held-out", held_out), ("--follow", follow or None)):
            if value is not None:
                raise ConfigError(describe(option, "needs rows to learn from", value, "Name them with --data"))
        return
    if data is not None:
        source = _source_of(data)
        content["source"] = {**(content["source"] if named == source["name"] else {}), **source}
    _put(content, ("source", "held_out_path"), held_out)
    _put(content, ("source", "follow"), follow or None)


def _source_of(data: str) -> dict[str, Any]:
    """Return the source that --data names."""
    if not data.startswith(TOPIC):
        return {"name": "rows", "path": data}
    servers, slash, topic = data.removeprefix(TOPIC).partition("/")
    if not servers or not slash or not topic or "/" in topic:
        raise ConfigError(describe("--data", "names no topic", data, f"Write {TOPIC}HOST:PORT/TOPIC"))
    return {"name": "kafka", "servers": servers, "topic": topic}


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
