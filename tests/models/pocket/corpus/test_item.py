import dataclasses

import pytest

from everlearn.models.pocket.corpus.item import Item


def test_an_item_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Item("2 + 2", "4").answer = "5"
