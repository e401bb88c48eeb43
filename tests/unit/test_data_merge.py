from itertools import permutations
from typing import Any

import pytest
from test_data_manifest import utterance

from data.duplicates import DuplicatePair
from data.manifest import Utterance
from data.merge import mark, merge

A, B, C = (letter * 32 for letter in "abc")


def row(name: str, corpus: str, split: str, **fields: Any) -> Utterance:
    return utterance(name, corpus=corpus, split=split, **fields)


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_the_held_out_copy_stays_in_every_order_of_the_corpora(order: tuple[int, ...]) -> None:
    copies = [row(A, "one", "train"), row(A, "two", "test"), row(A, "three", "dev")]
    copies.append(row(A, "four", ""))
    kept, found = merge([copies[index] for index in order])
    assert [(one.corpus, one.split) for one in kept] == [("two", "test")]
    (repetition,) = found
    assert (repetition.id, repetition.kind, repetition.copies) == (A, "exact", ())
    assert repetition.corpora == ("two", "three", "one", "four")
    assert repetition.splits == ("test", "dev", "train", "") and repetition.conflicting
    assert "two (test), three (dev), one (train), four (no split); kept: two" in str(repetition)


def test_between_equals_the_corpus_that_is_named_first_stays() -> None:
    rows = [row(A, "two", "train"), row(B, "two", "dev"), row(A, "one", "train")]
    kept, (repetition,) = merge(rows)
    assert [(one.corpus, one.utterance_id) for one in kept] == [("two", A), ("two", B)]
    assert not repetition.conflicting
    assert merge(rows[:2])[1] == []


def test_a_near_copy_that_trains_gives_way_to_the_one_that_judges() -> None:
    rows = [row(A, "one", "train"), row(B, "two", "test"), row(C, "three", "train")]
    pairs = [
        DuplicatePair(first=A, second=B, distance=0.1),
        DuplicatePair(first=A, second=C, distance=0.1),
    ]
    marked, (repetition,) = mark(rows, pairs)
    assert [one.duplicate_of for one in marked] == [B, "", B]
    assert (repetition.id, repetition.copies) == (B, (A, C)) and repetition.conflicting
    assert "the same sound" in str(repetition)


def test_within_a_corpus_the_same_holds_and_equals_are_left_as_they_were() -> None:
    conflict = [row(A, "one", "train"), row(B, "one", "test", duplicate_of=A)]
    marked, (repetition,) = mark(conflict, [])
    assert [one.duplicate_of for one in marked] == [B, ""] and repetition.conflicting
    equal = [row(A, "one", "train", duplicate_of=B), row(B, "one", "train")]
    marked, (repetition,) = mark(equal, [])
    assert marked == equal and not repetition.conflicting
    alone = [row(A, "one", "train", duplicate_of=C)]
    assert mark(alone, [])[0][0].duplicate_of == ""
