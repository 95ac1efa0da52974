"""Document sentiment: whether a product review is positive, a kind of product a task."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from everlearn.registry import register
from everlearn.streams.domains.domain import DomainStream
from everlearn.streams.domains.table import Entry

PRODUCTS = (
    "Video_Games", "Toys_and_Games", "Tools_and_Home_Improvement", "Sports_and_Outdoors", "Pet_Supplies",
    "Patio_Lawn_and_Garden", "Office_Products", "Musical_Instruments", "Movies_and_TV", "Kindle_Store",
    "Home_and_Kitchen", "Health_and_Personal_Care", "Grocery_and_Gourmet_Food", "Electronics", "Digital_Music",
    "Clothing_Shoes_and_Jewelry", "Cell_Phones_and_Accessories", "CDs_and_Vinyl", "Books", "Beauty", "Baby",
    "Automotive", "Apps_for_Android", "Amazon_Instant_Video",
)  # fmt: skip
_REVIEWS = Entry(
    columns={"text": ("sentence",), "label": ("polarity",)},
    values={"-1": "negative", "1": "positive"},
    labels=("negative", "positive"),
    metrics=("accuracy", "f1"),
    licence="none stated, research use",
    source="Amazon reviews, J. McAuley; github.com/ZixuanKe/LifelongSentClass",
)


@register("stream", "dsc")
@dataclass(frozen=True, kw_only=True)
class Dsc(DomainStream):
    """Sentiment of reviews of 24 kinds of product, positive or negative; order 1 has the usual ten of them.

    No data set of the hub is known for it: give the folder dat/dsc of its repository, with train.json, dev.json and
    test.json for each product, or files of your own with text and label. Classes are uneven in some.

    Licence: none stated; reviews for research use.
    Source: Z. Ke et al., ECML-PKDD 2020, github.com/ZixuanKe/LifelongSentClass, and PyContinual, whose loader lists the
    24 products and the ten. In which order the ten come is drawn anew there by a file of sequences; order 1 is one of
    them as it was handed down, not checked.
    """

    entries: ClassVar[Mapping[str, Entry]] = dict.fromkeys(PRODUCTS, _REVIEWS)
    orders: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "1": (
            "Tools_and_Home_Improvement", "Pet_Supplies", "Office_Products", "Kindle_Store", "Movies_and_TV",
            "Video_Games", "Musical_Instruments", "Sports_and_Outdoors", "Patio_Lawn_and_Garden", "Toys_and_Games",
        ),
    }  # fmt: skip
