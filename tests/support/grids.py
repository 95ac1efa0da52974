"""Small grids."""

from pathlib import Path
from typing import Any

import yaml

from support.recipes import plain_recipe


def write_grid(folder: Path, **changes: Any) -> Path:
    """Write a grid of an MLP on the digits into a folder; return its file."""
    recipe = plain_recipe([])
    del recipe["strategies"]
    grid = {"recipe": recipe, "methods": ["none", "replay", "joint"], "seeds": [0, 1], "threads": 1, **changes}
    (folder / "grid.yaml").write_text(yaml.safe_dump(grid, sort_keys=False))
    return folder / "grid.yaml"
