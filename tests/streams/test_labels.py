import pytest

from everlearn.errors import StreamError
from everlearn.streams.labels import BadRow, LabelBook, key_of, with_labels
from everlearn.types import Task


def _numbered(book, labels, **options):
    given = [book.number(label, **options) for label in labels]
    names, new = book.order("task 't'")
    return names, [new[number] for number in given]


def test_names_are_sorted():
    assert _numbered(LabelBook(), ["pos", "neg", "pos"]) == (("neg", "pos"), [1, 0, 1])


def test_whole_numbers_are_ordered_by_value_and_closed_up():
    assert _numbered(LabelBook(), [10, -1, 2]) == (("-1", "2", "10"), [2, 0, 1])


def test_text_of_whole_numbers_is_ordered_by_value():
    assert _numbered(LabelBook(), ["10", "9"], untyped=True) == (("9", "10"), [1, 0])


def test_a_file_of_text_may_mix_numbers_and_names():
    assert _numbered(LabelBook(), ["1", "many"], untyped=True) == (("1", "many"), [0, 1])


@pytest.mark.parametrize(
    ("label", "key"),
    [(0, 0), ("0", 0), ("0.0", 0), ("-1", -1), ("+2.", 2), (" pos ", "pos"), ("4.5", "4.5"), ("1e3", "1e3"),
     ("cafe\u0301", "caf\u00e9")],
)  # fmt: skip
def test_labels_that_mean_the_same_share_a_key(label, key):
    assert key_of(label) == key


def test_a_number_is_one_label_however_it_is_written_and_it_is_told():
    book = LabelBook()
    given = [book.number(label, untyped=True) for label in ("1.0", "0.0")] + [
        book.number(label) for label in (0, 1, "1")
    ]
    assert (given, book.order("t")) == ([0, 1, 1, 0, 0], (("0", "1"), [1, 0]))
    assert book.notes("task 't'") == [
        "task 't': the labels '1' and '1.0' are one.", "task 't': the labels '0' and '0.0' are one.",
    ]  # fmt: skip


def test_white_space_around_a_name_makes_no_label_of_its_own():
    book = LabelBook()
    assert [book.number(label) for label in ("pos", "neg ", "pos ", "neg")] == [0, 1, 0, 1]
    assert book.order("t")[0] == ("neg", "pos")
    assert "the labels 'neg' and 'neg ' are one." in book.notes("t")[1]


def test_minus_one_beside_zero_is_told_and_the_coding_of_two_classes_is_not():
    for labels, told in (([-1, 0, 1], True), ([-1, 1], False)):
        book = LabelBook()
        for label in labels:
            book.number(label)
        assert any("-1 counts as a class" in note for note in book.notes("t")) == told


@pytest.mark.parametrize(
    ("labels", "trained", "closed", "anywhere", "marks"),
    [
        ((), [0, 1], False, False, {-100}),
        ((), [0, 1], True, False, {-1, -100}),
        ((), [-1, 1], True, False, {-100}),
        ((), [0], False, True, {-1, -100}),
        (("a", "b"), [], False, False, {-1, -100}),
        (("-1", "-100"), [], True, True, set()),
    ],
)
def test_what_marks_a_row_without_a_label(labels, trained, closed, anywhere, marks):
    book = LabelBook(labels)
    for label in trained:
        book.number(label)
    book.closed = closed
    assert {mark for mark in (-1, -100, 0, 7) if book.marks_none(mark, anywhere=anywhere)} == marks


def test_names_and_numbers_do_not_mix():
    with pytest.raises(StreamError, match="names in some rows and numbers in others"):
        _numbered(LabelBook(), [1, "pos"])


def test_label_names_name_the_numbers():
    book = LabelBook()
    given = [book.number(5, name="five"), book.number(2, name="two")]
    assert (given, book.order("t")) == ([0, 1], (("two", "five"), [1, 0]))
    with pytest.raises(BadRow, match="label 5 was 'five' before, but label_name says 'six'"):
        book.number(5, name="six")


def test_label_names_are_left_out_where_a_row_has_none():
    book = LabelBook()
    book.number(5, name="five")
    book.number(2)
    assert book.order("t")[0] == ("2", "5")


def test_declared_labels_are_names_or_indices():
    book = LabelBook(["no", "yes"])
    assert [book.number("yes"), book.number(0), book.number("1", untyped=True)] == [1, 0, 1]
    assert [book.number(" yes"), book.number("0.0", untyped=True)] == [1, 0]
    assert LabelBook(["-1", "1"]).number(-1) == 0
    assert book.order("t") == (("no", "yes"), [0, 1])


@pytest.mark.parametrize(
    ("label", "untyped", "name", "reason"),
    [
        ("yess", False, None, "unknown label 'yess'. Did you mean 'yes'"),
        (2, False, None, "unknown label 2: the labels are numbered 0 to 1"),
        (-1, False, None, "unknown label -1"),
        ("1", False, None, "unknown label '1'"),
        ("2", True, None, "unknown label '2'"),
        (0, False, "yes", "label 0 is 'no', but label_name says 'yes'"),
    ],
)
def test_labels_that_are_not_declared_are_bad(label, untyped, name, reason):
    with pytest.raises(BadRow, match=reason):
        LabelBook(["no", "yes"]).number(label, untyped=untyped, name=name)


def test_labels_are_numbered_as_they_were_before():
    rows = [{"tokens": ["a", "b"], "tags": [0, 1]}]
    known = with_labels(Task("t", "tag", rows, rows, rows, labels=("B-X", "O")), ["O", "B-X", "B-Y"])
    assert known.labels == ("O", "B-X", "B-Y")
    assert known.train == known.evaluation == known.validation == [{"tokens": ["a", "b"], "tags": [1, 0]}]
    words = [{"text": "a", "label": 1}]
    assert with_labels(Task("t", "classify", words, [], labels=("no", "yes")), ["yes", "no"]).train[0]["label"] == 0
    with pytest.raises(StreamError, match=r"^task 't': has labels that it had not before. Got \['yes'\]. Known: no"):
        with_labels(Task("t", "classify", words, [], labels=("no", "yes")), ["no"])
