"""Experts in and out of a library: folders that peft loads."""

import copy
import shutil
from collections.abc import Sequence
from pathlib import Path

from everlearn.errors import ConfigError, ModelError, describe
from everlearn.experts.library import Library
from everlearn.experts.lora import PREFIX, Lora
from everlearn.experts.record import Expert, Learned
from everlearn.experts.store import EXPERT
from everlearn.experts.weights import HEADS, read_heads
from everlearn.files import read_sealed, staged
from everlearn.models.card import gguf_base
from everlearn.models.gguf import gguf_of
from everlearn.models.load import AUTO
from everlearn.models.origin import COMMIT, fingerprint_of, place_of

_SURE = "If you know that it was trained on this base, say so: same_base=True, or --same-base"


def import_adapter(
    library: Library,
    folder: str | Path,
    description: str | None = None,
    *,
    tag: str | None = None,
    learned: Sequence[Learned] = (),
    same_base: bool = False,
) -> Expert:
    """Take a peft LoRA of the same base into a library.

    Args:
        folder: that peft's `save_pretrained`, or `export`, wrote.
        description, tag: of the expert; of one that was exported from a library, by default its own.
        learned: the tasks that it is known to have learned; of one that was exported, beside its own.
        same_base: it was trained on this base, though it doesn't say so.

    Raises:
        ModelError: if it belongs, or may belong, to another base; if layers are missing or unknown, or the rank is
            larger than the library takes. StateError: if a file can't be read.
    """
    folder = Path(folder)
    lora = Lora.read(folder)
    record = read_sealed(folder / EXPERT) if (folder / EXPERT).exists() else {}
    if record:
        library.base.check_same(record["base"], str(folder))
    elif not same_base:
        _check_base(library, lora, folder)
    heads = read_heads(folder, record.get("labels", {}))
    own = [Learned(task=t, n_rows=record["rows"].get(t, 0), head=heads.get(t)) for t in record.get("tasks", ())]
    told = {task.task for task in learned}
    return library.add(
        lora,
        record.get("description", "") if description is None else description,
        tag=record.get("tag", "") if tag is None else tag,
        learned=[*(task for task in own if task.task not in told), *learned],
        origin="imported",
    )


def export_expert(library: Library, number: int, folder: str | Path, task: str | None = None) -> Path:
    """Write an expert into a new folder: `PeftModel.from_pretrained(base, folder)` answers as it does in the library.

    Args:
        task: of a classifier, whose head goes with it, as a module that peft loads whole.

    Raises:
        ConfigError: if the folder is not empty, or there is no such head. StateError: if the expert is damaged.
        ModelError: if the head can't stand by itself.
    """
    folder = _new(folder)
    expert, lora = library.expert(number), library.lora(number)
    with staged(folder) as aside:
        for name in (*expert.files, EXPERT):
            shutil.copyfile(library.folder(number) / name, aside / name)
        if task is not None:
            _add_head(library, number, task, lora).write(aside)
            (aside / HEADS).unlink()
            (aside / EXPERT).unlink()  # it is no plain adapter, which a library would take
        (aside / "README.md").write_text(_card(library, expert, lora, task), encoding="utf-8")
    return folder


def export_all(library: Library, folder: str | Path) -> list[Path]:
    """Write each expert in use into a folder of its own below a new one: DIR/000017.

    Raises:
        as `export_expert` does; what was written before stays.
    """
    folder = _new(folder)
    return [export_expert(library, expert.number, folder / f"{expert.number:06d}") for expert in library.experts]


def _check_base(library: Library, lora: Lora, folder: Path) -> None:
    """Raise ModelError unless an adapter says that it belongs to the library's base, by a name that can be followed."""
    name, revision, base = lora.config.base_model_name_or_path, lora.config.revision, library.base
    place = place_of(name) if name else None
    if place is not None:
        base.check_same(fingerprint_of(place), str(folder))
        return
    if name == base.name and revision in (None, base.fingerprint.get(COMMIT)):
        return
    what = f"doesn't say that it belongs to {base.name!r}"
    raise ModelError(describe(str(folder), what, name if revision is None else f"{name} at {revision}", _SURE))


def _add_head(library: Library, number: int, task: str, lora: Lora) -> Lora:
    """Return a LoRA with the head of a task beside it."""
    head, base = library.head(number, task), library.base
    if "." in base.head:
        way_out = "Export the run or the home that learned it: everlearn export"
        what = "the head is part of a larger layer, which peft would take whole"
        raise ModelError(describe(f"export: task {task!r}", what, base.head, way_out))
    config = copy.deepcopy(lora.config)
    config.modules_to_save = [base.head]
    config.task_type = "TOKEN_CLS" if base.kind == "tag" else "SEQ_CLS"
    parts = {"weight": head.weight} | ({} if head.bias is None else {"bias": head.bias})
    return Lora(config, lora.tensors | {f"{PREFIX}{base.head}.{part}": tensor for part, tensor in parts.items()})


def _card(library: Library, expert: Expert, lora: Lora, task: str | None) -> str:
    """Return the README of an exported expert."""
    labels = "" if task is None else f"Labels, in order: {', '.join(expert.labels[task])}.\n\n"
    kind, name = library.base.kind, lora.config.base_model_name_or_path or library.base.name
    file = gguf_of(name)
    if file is not None:
        lines = gguf_base(kind, name, file, {})
    else:
        auto = AUTO[kind].__name__ if kind in AUTO else "AutoModel"
        options = "" if task is None else f", num_labels={len(expert.labels[task])}"
        lines = ["from peft import PeftModel", f"from transformers import {auto}", ""]
        lines.append(f"base = {auto}.from_pretrained({name!r}{options})")
    lines.append('model = PeftModel.from_pretrained(base, ".")')
    code = "\n".join(lines)
    head = f"# {expert.tag or f'Expert {expert.number}'}, a LoRA adapter exported by everlearn"
    return f"{head}\n\n{expert.description}\n\nBase model: {name}.\n\n{labels}```python\n{code}\n```\n"


def _new(folder: str | Path) -> Path:
    folder = Path(folder).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(describe("export", "the folder is not empty", str(folder), "Name a new folder"))
    return folder
