"""Out of a library and into another one: peft loads what is written, and what may be of another base is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoModelForTokenClassification

from everlearn.errors import ConfigError, ModelError, StateError
from everlearn.experts import Head, Learned, Library, Slots, export_all, export_expert, import_adapter
from everlearn.models.adapters import quiet_peft
from everlearn.models.load import AdapterConfig, ModelConfig, load_model
from everlearn.models.quiet import quiet
from support.experts import INPUTS, logits, make_lora, shake
from support.runs import answers, assert_same, make_bench
from support.tasks import prompt_task


def by_peft(llama: Path, out: Path, **options: object) -> Path:
    """Write a LoRA that peft made and moved by itself."""
    torch.manual_seed(0)
    with quiet_peft():
        base = AutoModelForCausalLM.from_pretrained(llama)
        network = get_peft_model(base, LoraConfig(init_lora_weights=False, target_modules=["q_proj"], **options))
        network.save_pretrained(out)
    return out


def change_name(folder: Path, name: str | None) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": name}))


def test_an_expert_of_a_run_is_loaded_by_peft_to_the_same_logits(model, tmp_path, llama):
    library = Library.create(tmp_path / "library", model)
    slots = Slots(model, library)
    shake(model, 0)
    wanted = logits(model)
    library.add(slots.trained(), "shaken", tag="exp/shaken")
    folder = export_expert(library, 0, tmp_path / "out")
    with quiet_peft(), torch.no_grad():
        network = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama), str(folder)).eval()
        assert torch.equal(network(input_ids=INPUTS).logits, wanted)
    card = (folder / "README.md").read_text()
    assert card.startswith("# exp/shaken, a LoRA adapter exported by everlearn\n\nshaken\n")
    assert f"AutoModelForCausalLM.from_pretrained({str(llama)!r})" in card


def test_the_card_loads_a_base_in_a_gguf_file(tiny_gguf, tmp_path):
    model = load_model(ModelConfig(str(tiny_gguf), AdapterConfig(rank=2)), [prompt_task(0)])
    library = Library.create(tmp_path / "library", model)
    slots = Slots(model, library)
    shake(model, 0)
    library.add(slots.trained(), "shaken")
    folder = export_expert(library, 0, tmp_path / "out")
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0].replace('"."', repr(str(folder)))
    names: dict = {}
    with quiet(), quiet_peft(), torch.no_grad():
        exec(code, names)
        torch.testing.assert_close(names["model"].eval()(input_ids=INPUTS).logits, logits(model), atol=1e-5, rtol=0)
    other = Library.create(tmp_path / "other", model)
    (folder / "expert.json").unlink()
    assert import_adapter(other, folder, "named by its file").number == 0


def test_all_experts_come_back_into_another_library(library, still, tmp_path):
    for seed in range(3):
        told = [Learned(task=f"t{seed}", n_rows=5)]
        library.add(make_lora(library.base, seed), f"number {seed}", tag=f"e/{seed}", learned=told)
    library.retire(1)
    paths = export_all(library, tmp_path / "out")
    assert [path.name for path in paths] == ["000000", "000002"]
    other = Library.create(tmp_path / "other", still)
    for path in paths:
        import_adapter(other, path)
    assert [(e.number, e.tag, e.description, e.origin, e.rows) for e in other.experts] == [
        (0, "e/0", "number 0", "imported", {"t0": 5}), (1, "e/2", "number 2", "imported", {"t2": 5}),
    ]  # fmt: skip
    assert_same(other.lora(1).tensors, library.lora(2).tensors)
    with pytest.raises(ConfigError, match="export: the folder is not empty"):
        export_all(library, tmp_path / "out")


def test_what_peft_wrote_is_imported_and_answers_alike(model, llama, tmp_path):
    folder = by_peft(llama, tmp_path / "peft", r=4)
    library = Library.create(tmp_path / "library", model)
    told = [Learned(task="known", prototype=torch.ones(4))]
    expert = import_adapter(library, folder, "by peft", learned=told)
    assert (expert.origin, expert.tasks, expert.rank) == ("imported", ("known",), 4)
    with quiet_peft(), torch.no_grad():
        network = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama), str(folder)).eval()
        wanted = network(input_ids=INPUTS).logits
    with Slots(model, library).answering(0):
        torch.testing.assert_close(logits(model), wanted, atol=5e-6, rtol=0)


def test_an_adapter_that_may_be_of_another_base_is_refused(library, llama, tmp_path):
    folder = by_peft(llama, tmp_path / "peft")
    for name in (None, "someone/model", str(tmp_path / "gone")):
        change_name(folder, name)
        with pytest.raises(ModelError, match=r"doesn't say that it belongs to .*same-base"):
            import_adapter(library, folder, "by peft")
    other = shutil.copytree(llama, tmp_path / "other")
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    change_name(folder, str(other))
    with pytest.raises(ModelError, match=r"belongs to another base model.*Got 'config\.json'"):
        import_adapter(library, folder, "by peft")
    assert len(library) == 0
    assert import_adapter(library, folder, "by peft", same_base=True).number == 0


def test_an_expert_of_another_librarys_base_is_refused_whatever_is_said(library, llama, tmp_path):
    library.add(make_lora(library.base, 0), "mine")
    folder = export_expert(library, 0, tmp_path / "out")
    copy = shutil.copytree(llama, tmp_path / "other")
    (copy / "config.json").write_text((copy / "config.json").read_text() + "\n")
    other = Library.create(tmp_path / "library2", load_model(ModelConfig(str(copy)), [prompt_task(0)]))
    with pytest.raises(ModelError, match="belongs to another base model"):
        import_adapter(other, folder, same_base=True)


def test_an_import_without_a_description_is_refused(library, llama, tmp_path):
    with pytest.raises(ConfigError, match="expert: description: is empty"):
        import_adapter(library, by_peft(llama, tmp_path / "peft"))
    with pytest.raises(StateError, match="Name a folder that peft's save_pretrained wrote"):
        import_adapter(library, tmp_path, "nothing there")


def test_a_damaged_expert_is_not_exported(library, tmp_path):
    library.add(make_lora(library.base, 0), "mine")
    (library.folder(0) / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(StateError, match=r"expert 0: .* is damaged"):
        export_expert(library, 0, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["classify", "tag"])
def test_a_classifier_goes_with_its_head(kind, llama, whole_bert, tmp_path):
    bench = make_bench(kind, llama, whole_bert)
    run = bench.run()
    for task in bench.tasks:
        run.add_labels(task)
    shake(run.model, 0)
    adapters, task = run.model.adapters, bench.tasks[1]
    library = Library.create(tmp_path / "library", run.model)
    slots = Slots(run.model, library)
    learned = [Learned(task=task.name, head=Head.of(adapters, task.name)) for task in bench.tasks]
    expert = library.add(slots.trained(), "a classifier", learned=learned)
    assert expert.labels == {task.name: list(task.labels) for task in bench.tasks}
    wanted = answers(run, task)
    shake(run.model, 1)
    assert not torch.equal(answers(run, task), wanted)
    library.head(0, task.name).copy_to(adapters, task.name)
    with slots.answering(0):
        torch.testing.assert_close(answers(run, task), wanted, atol=1e-5, rtol=0)
    folder = export_expert(library, 0, tmp_path / "out", task=task.name)
    auto = AutoModelForSequenceClassification if kind == "classify" else AutoModelForTokenClassification
    rows = [task.evaluation[i] for i in range(len(task.evaluation))]
    batch = run.model.objective.collate(run.model.objective.encode(rows, task))
    inputs = {name: tensor for name, tensor in batch.items() if name not in ("labels", "tasks")}
    with quiet(), quiet_peft(), torch.no_grad():
        base = auto.from_pretrained(whole_bert, num_labels=len(task.labels), ignore_mismatched_sizes=True)
        found = PeftModel.from_pretrained(base, str(folder)).eval()(**inputs).logits
    if kind == "tag":
        found = found[batch["labels"] >= 0]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert f"Labels, in order: {', '.join(task.labels)}." in (folder / "README.md").read_text()
    other = Library.create(tmp_path / "other", run.model)
    import_adapter(other, export_expert(library, 0, tmp_path / "plain"))
    for task in bench.tasks:
        assert torch.equal(other.head(0, task.name).weight, library.head(0, task.name).weight)
    with pytest.raises(ConfigError, match="has other labels"):
        library.head(0, bench.tasks[0].name).copy_to(adapters, bench.tasks[1].name)
    with pytest.raises(ConfigError, match="has no head for this task"):
        export_expert(library, 0, tmp_path / "third", task="third")
