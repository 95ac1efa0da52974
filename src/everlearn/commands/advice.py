"""The command that advises: which method to take, by short trials on the user's own data."""

from pathlib import Path
from typing import Annotated

import typer

from everlearn.commands.runs import Out, Settings
from everlearn.commands.terminal import bars, check_one_process, console


def advise(
    stream: Annotated[list[str], typer.Option(help="A recipe; data files or folders (repeat it); or a stream's name.")],
    model: Annotated[
        str | None, typer.Option(help="pocket, smollm2, a folder, a GGUF file, a hub id, mlp (default: pocket).")
    ] = None,
    budget: Annotated[str, typer.Option(help="How long it may take: 90s, 10m, 1h.")] = "10m",
    strategies: Annotated[list[str] | None, typer.Option(help="What to try: replay,ewc,replay+ewc.")] = None,
    out: Out = Path("runs/advise"),
    settings: Settings = None,
    seed: Annotated[int | None, typer.Option(help="Of all trials (default: the recipe's, or 0).")] = None,
) -> None:
    """Try a few methods on your own data for a few minutes, and write a recipe with the one to take."""
    from everlearn.kinds.advice import advise as find_advice
    from everlearn.kinds.advice import content_of, parse_budget
    from everlearn.kinds.advice.kind import AdviceFolder

    check_one_process("advise")
    named = None if strategies is None else [n.strip() for entry in strategies for n in entry.split(",") if n.strip()]
    budget_s, content = parse_budget(budget), content_of(stream, model, settings or (), seed)
    with bars(AdviceFolder) as listener:
        found = find_advice(content, out, budget_s=budget_s, strategies=named, listener=listener)
    AdviceFolder.finish(out, found, listener, console)
