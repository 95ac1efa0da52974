"""Tables too large to hold: in a file that is mapped into memory, so that the system may drop what isn't read."""

import mmap
import tempfile

import pyarrow as pa

MAPPED_BYTES = 256 * 2**20  # of a part's rows, or of encoded ones, from here on


def mapped(table: pa.Table) -> pa.Table:
    """Return a table like this one, in a file that is mapped into memory.

    The file is in the system's temporary folder (TMPDIR) and has no name: it is gone with the last who reads it,
    however the process ends.

    Raises:
        OSError: if the disk is full.
    """
    with tempfile.TemporaryFile(prefix="everlearn-") as file:
        with pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
        file.flush()
        kept = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return pa.ipc.open_stream(pa.py_buffer(kept)).read_all()
