"""What a run of a small grid left."""

import pytest

from everlearn.bench.analysis import analyse
from everlearn.bench.course import Options, bench
from support.grids import write_grid


@pytest.fixture(scope="session")
def done(tmp_path_factory):
    """Return the folder of an experiment that came to its end, with its analysis; a cell of it fails."""
    folder = tmp_path_factory.mktemp("bench")
    path = write_grid(folder, methods={"none": [], "replay": ["replay"], "joint": ["joint"], "l2p": ["l2p"]})
    told = []
    found = bench(path, folder / "out", Options(jobs=1), told.append)
    (folder / "told.txt").write_text("\n".join(told))
    assert list(found.failures) == ["l2p/seed-0", "l2p/seed-1"]
    analyse(folder / "out")
    return folder
