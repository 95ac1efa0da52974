"""The fifteen tasks of O-LoRA's long sequence, the standard benchmark of four among them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from everlearn.registry import register
from everlearn.streams.domains.domain import DomainStream
from everlearn.streams.domains.glue import GLUE
from everlearn.streams.domains.table import Entry

_SOURCE = "github.com/cmnfriend/O-LoRA, CL_Benchmark"
_NLI, _BOOLEAN, _FEELING = ("neutral", "entailment", "contradiction"), ("False", "True"), ("Good", "Bad")
_STARS = ("very negative", "negative", "neutral", "positive", "very positive")
_SUPER_GLUE = Entry(
    hub="aps/super_glue",
    splits={"train": "train", "evaluation": "validation"},
    licence="SuperGLUE's terms, research",
)


def _task(folder: str, hub: Entry, labels: tuple[str, ...], text: str, text_pair: str = "", label: str = "") -> Entry:
    """Return a task that is read from the benchmark's own folder, or from the set on the hub that it was drawn of.

    The benchmark's rows have `input`, the sentence with what names its parts, and `output`, a label in words; the names
    of columns are the hub's.
    """
    columns = {"text": ("input", text), "label": ("output", label or "label")}
    return replace(
        hub,
        folders=(folder, folder.rpartition("/")[2]),
        columns=columns | ({"text_pair": (text_pair,)} if text_pair else {}),
        labels=labels,
        metrics=("accuracy",),
        source="github.com/cmnfriend/O-LoRA, CL_Benchmark",
    )


CL15 = {
    "mnli": _task("NLI/MNLI", GLUE["mnli"], _NLI, "premise", "hypothesis"),
    "cb": _task("NLI/CB", replace(_SUPER_GLUE, config="cb"), _NLI, "premise", "hypothesis"),
    "wic": _task(
        "WiC/WiC",
        replace(_SUPER_GLUE, config="wic", licence="CC BY-NC 4.0"),
        _BOOLEAN,
        "{word}: {sentence1}",
        "sentence2",
    ),
    "copa": _task(
        "COPA/COPA",
        replace(_SUPER_GLUE, config="copa", licence="BSD 2-Clause"),
        ("A", "B"),
        "{premise} What is the {question}?",
        "A: {choice1} B: {choice2}",
    ),
    "qqp": _task("QQP/QQP", GLUE["qqp"], _BOOLEAN, "question1", "question2"),
    "boolqa": _task(
        "BoolQA/BoolQA",
        replace(_SUPER_GLUE, config="boolq", licence="CC BY-SA 3.0"),
        _BOOLEAN,
        "question",
        "passage",
    ),
    "rte": _task("NLI/RTE", GLUE["rte"], ("contradiction", "entailment"), "sentence1", "sentence2"),
    "imdb": _task("SC/IMDB", Entry(hub="stanfordnlp/imdb", licence="none stated, research use"), _FEELING, "text"),
    "yelp": _task(
        "SC/yelp", Entry(hub="Yelp/yelp_review_full", licence="Yelp's terms, academic use"), _STARS, "text"
    ),
    "amazon": _task(
        "SC/amazon",
        Entry(licence="reviews, academic use", remark="no hub id known for the five-star set that it was drawn of"),
        _STARS,
        "text",
    ),
    "sst2": _task("SC/SST-2", GLUE["sst2"], _FEELING, "sentence"),
    "dbpedia": _task(
        "TC/dbpedia",
        Entry(hub="fancyzhx/dbpedia_14", licence="CC BY-SA 3.0"),
        ("Company", "Educational Institution", "Artist", "Athlete", "Office Holder", "Mean of Transportation",
         "Building", "Natural Place", "Village", "Animal", "Plant", "Album", "Film", "Written Work"),
        "content",
    ),
    "agnews": _task(
        "TC/agnews",
        Entry(hub="fancyzhx/ag_news", licence="non-commercial"),
        ("World", "Sports", "Business", "Science or Technology"),
        "text",
    ),
    "multirc": _task(
        "MultiRC/MultiRC", replace(_SUPER_GLUE, config="multirc"), _BOOLEAN, "paragraph", "{question} {answer}"
    ),
    "yahoo": _task(
        "TC/yahoo",
        Entry(hub="community-datasets/yahoo_answers_topics", licence="Yahoo's agreement, non-commercial research"),
        ("Society & Culture", "Science & Mathematics", "Health", "Education & Reference", "Computers & Internet",
         "Sports", "Business & Finance", "Entertainment & Music", "Family & Relationships", "Politics & Government"),
        "{question_title} {question_content}",
        "best_answer",
        "topic",
    ),
}  # fmt: skip


@register("stream", "cl15")
@dataclass(frozen=True, kw_only=True)
class Cl15(DomainStream):
    """Fifteen text classification tasks of GLUE, SuperGLUE, IMDB and five large sets; orders 1-3 have four, 4-6 all.

    Read as the benchmark's own folder, CL_Benchmark of its repository, has them (1,000 rows a task or 1,000 a class);
    as whole sets from the hub with the first sentences of each row and no instruction: cut these by train_rows.

    Licence: of each set; most are for research only, terms not read again.
    Source: X. Wang et al., O-LoRA, arXiv 2310.14152, and its repository; orders 4-6 were Progressive Prompts' 8-10
    (A. Razdaibiedina et al., arXiv 2301.12314). Orders 1-3 read off O-LoRA's scripts, 4-6 off two others' that quote
    them and agree.
    """

    entries: ClassVar[Mapping[str, Entry]] = CL15
    orders: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "1": ("dbpedia", "amazon", "yahoo", "agnews"),
        "2": ("dbpedia", "amazon", "agnews", "yahoo"),
        "3": ("yahoo", "amazon", "agnews", "dbpedia"),
        "4": tuple(CL15),
        "5": ("multirc", "boolqa", "wic", "mnli", "cb", "copa", "qqp", "rte", "imdb", "sst2", "dbpedia", "agnews",
              "yelp", "amazon", "yahoo"),
        "6": ("yelp", "amazon", "mnli", "cb", "copa", "qqp", "rte", "imdb", "sst2", "dbpedia", "agnews", "yahoo",
              "multirc", "boolqa", "wic"),
    }  # fmt: skip
