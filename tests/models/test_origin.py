from everlearn.models.load import POCKET, ModelConfig
from everlearn.models.origin import differing_files, origin_of, place_of
from everlearn.models.plain import is_plain


def test_a_folder_s_files_are_hashed_and_plain_modules_have_none(llama, monkeypatch):
    files = origin_of(ModelConfig(str(llama)))
    assert {"config.json", "model.safetensors"} <= set(files)
    assert all(len(sha256) == 64 for sha256 in files.values())
    assert origin_of(ModelConfig("mlp")) == origin_of(ModelConfig("package.module:build")) == {}
    assert place_of(POCKET).is_dir()


def test_a_folder_with_a_colon_in_its_name_is_no_plain_module(tmp_path):
    (tmp_path / "a:b").mkdir()
    assert not is_plain(str(tmp_path / "a:b"))
    assert is_plain("a:b")


def test_files_that_differ_are_named():
    assert differing_files({"a": "1", "b": "1"}, {"a": "1", "b": "2", "c": "1"}) == ["b", "c"]
