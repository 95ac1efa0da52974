import pyarrow as pa

from everlearn.streams.mapped import mapped


def test_a_mapped_table_is_the_same_takes_no_room_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    table = pa.table(
        {"a": [str(i) for i in range(1000)], "b": [[i] * (i % 3) for i in range(1000)], "c": [None] * 1000}
    )
    before = pa.total_allocated_bytes()
    found = mapped(table)
    assert pa.total_allocated_bytes() - before < 0.1 * table.nbytes
    assert found.equals(table)
    assert list(tmp_path.iterdir()) == []
