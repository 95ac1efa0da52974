"""Many LoRA experts of one frozen model: a library on the disk, and slots in the model that hold a few of them."""

from everlearn.experts.exchange import export_all, export_expert, import_adapter
from everlearn.experts.library import Library
from everlearn.experts.lora import Lora
from everlearn.experts.merging import Merge
from everlearn.experts.record import Expert, Head, Learned
from everlearn.experts.slots import Slots

__all__ = [
    "Expert", "Head", "Learned", "Library", "Lora", "Merge", "Slots", "export_all", "export_expert", "import_adapter",
]  # fmt: skip
