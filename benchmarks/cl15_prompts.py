"""The benchmark of 15 text tasks as prompts and completions, for language models that answer with the label's name.

    python benchmarks/cl15_prompts.py SHARED/cl15 FOLDER [--words N]

Writes FOLDER/<task>/train.jsonl and test.jsonl: the task's own prompt of tasks.json there (instruction, options, text,
`Answer:`) and the label's name. A text is cut to its first N words: a context too short for it would lose the
instruction.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet

TASKS = ("dbpedia", "amazon", "agnews", "yelp")


def prompts(file: Path, task: dict[str, Any], n_words: int) -> list[dict[str, str]]:
    """Return a Parquet file's rows as prompts and completions."""
    options = ", ".join(task["labels"])
    return [
        {
            "prompt": task["prompt_template"].format(options=options, sentence=" ".join(row["text"].split()[:n_words])),
            "completion": f" {row['label_name']}",
        }
        for row in parquet.read_table(file).to_pylist()
    ]


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--words", type=int, default=60)
    arguments = parser.parse_args()
    tasks = json.loads((arguments.source / "tasks.json").read_text(encoding="utf-8"))["tasks"]
    for name in TASKS:
        (arguments.folder / name).mkdir(parents=True, exist_ok=True)
        for part in ("train", "test"):
            rows = prompts(arguments.source / name / f"{part}.parquet", tasks[name], arguments.words)
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (arguments.folder / name / f"{part}.jsonl").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main()
