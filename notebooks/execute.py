"""Run the notebooks' text and write each beside it with its outputs: python notebooks/execute.py [NUMBER ...]

The text (jupytext, percent format) is what is edited; the .ipynb is made from it. Needs the extra `notebooks`.
"""

import os
import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent


def executed(text: Path) -> nbformat.NotebookNode:
    """Return the notebook that a text stands for, with its outputs; no time of day is kept.

    Raises:
        CellExecutionError: if a cell fails.
    """
    notebook = jupytext.read(text)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # drawn at random otherwise
    options = {"record_timing": False, "coalesce_streams": True, "resources": {"metadata": {"path": text.parent}}}
    without_widgets = {"PYTHONWARNINGS": "ignore:IProgress not found"}  # tqdm's, who asks for them in a notebook
    NotebookClient(notebook, **options).execute(env=os.environ | without_widgets)
    return notebook


def main() -> None:
    """Execute the notebooks whose names begin with the numbers given, by default all."""
    for text in sorted(FOLDER.glob("[0-9]*.py")):
        if len(sys.argv) == 1 or text.name.startswith(tuple(sys.argv[1:])):
            notebook = executed(text)
            notebook.metadata.pop("language_info", None)  # of the Python that ran it
            nbformat.write(notebook, text.with_suffix(".ipynb"))
            print(text.with_suffix(".ipynb"))


if __name__ == "__main__":
    main()
