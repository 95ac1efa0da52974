"""The procedural corpus that the pocket model is trained on: nine families of items in many formats."""

from everlearn.models.pocket.corpus.documents import FAMILIES, OPENING, document, sample, text_of

__all__ = ["FAMILIES", "OPENING", "document", "sample", "text_of"]
