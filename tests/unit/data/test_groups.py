from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ziggurat.data import Fractions, Role, Rows, overlapping, split_roles, stand_ins
from ziggurat.data.dataset import content_hashes, has_role
from ziggurat.errors import UserError

repeatable = settings(derandomize=True, deadline=None, max_examples=150)
EVEN = Fractions(0.4, 0.3, 0.3, 0.0)
words = st.sampled_from(["a", "b", "C"])
texts_of_few_words = st.lists(st.lists(words, min_size=3, max_size=19).map(" ".join), min_size=1, max_size=8)
many = st.sampled_from([f"w{n}" for n in range(40)])
sentences = st.lists(st.lists(many, min_size=6, max_size=20), min_size=1, max_size=8)


def strangers(n: int, length: int = 9) -> list[str]:
    """Texts that have nothing in common."""
    return [" ".join(f"own{i}x{j}" for j in range(length)) for i in range(n)]


def rows_of(texts: list[str], pairs: list[str] | None = None, labels: list | None = None) -> Rows:
    return Rows(texts, pairs, [i % 2 for i in range(len(texts))] if labels is None else labels, "here")


def grouped(texts: list[str], pairs: list[str] | None = None) -> np.ndarray:
    hashes = content_hashes(texts if pairs is None else [f"{a} | {b}" for a, b in zip(texts, pairs, strict=True)])
    return stand_ins(texts, pairs, hashes)


def phrases(sentence: list[str]) -> list[str]:
    """The sentence and what a parser might cut out of it, a word or two included."""
    n = len(sentence)
    cuts = [(0, n), (0, n // 2), (n // 2, n), (1, 4), (n - 5, n), (2, 4), (0, 1)]
    return [" ".join(sentence[start:end]) for start, end in cuts]


def share(one: str, other: str) -> bool:
    """The rule for texts of at least three words, as slow as it is plain."""
    a, b = one.lower().split(), other.lower().split()
    for mine in (a, b):
        least = max(size for size in (3, 4, 5, 6, 7, 8, 16, 32) if size <= len(mine))
        runs = [{tuple(text[i : i + least]) for i in range(len(text) - least + 1)} for text in (a, b)]
        if runs[0] & runs[1]:
            return True
    return False


# --- who is in a group ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@repeatable
@given(texts_of_few_words)
def test_groups_are_what_comparing_all_pairs_says(texts):
    parts = [{i} for i in range(len(texts))]
    for i, j in combinations(range(len(texts)), 2):
        if share(texts[i], texts[j]) and (one := parts[i]) is not (other := parts[j]):
            one |= other
            for k in other:
                parts[k] = one
    found = grouped(texts)
    assert {frozenset(np.flatnonzero(found == row).tolist()) for row in found} == set(map(frozenset, parts))


@pytest.mark.slow
@repeatable
@given(sentences, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_plays_no_part(found, random):
    texts = [phrase for sentence in found for phrase in phrases(sentence)]
    shuffled = random.sample(texts, len(texts))
    before, after = (
        {text: some[row] for text, row in zip(some, grouped(some), strict=True)} for some in (texts, shuffled)
    )
    assert before == after


def test_the_longest_row_stands_for_its_group():
    texts = ["a charming and funny", "a charming and funny story about love", "and funny story", "something else here"]
    assert grouped(texts).tolist() == [1, 1, 1, 3]


def test_half_a_text_makes_a_group_and_a_set_phrase_does_not():
    story = "a newly found fossil may be the remains of a dinosaur that hunted by stealth"
    again = [f"Fossil found . {story}", f"Stealth dino . {story}"]
    assert len(set(grouped(again).tolist())) == 1
    phrase = "get the latest news and stock quotes here"
    long = [f"{text} {phrase}" for text in strangers(2, 20)]
    assert grouped(long).tolist() == [0, 1]


def test_a_short_text_goes_with_one_row_and_joins_no_others():
    texts = ["the good film was long", "he saw the good film", "good film", "film", "sea"]
    found = grouped(texts).tolist()
    assert found[:2] == [0, 1] and found[2] in (0, 1) and found[3] in (0, 1) and found[4] == 4


def test_a_pair_is_joined_by_either_of_its_texts():
    first = ["rain is expected in the north", "nobody knows the answer", "sun is all there is", "yes and no"]
    second = ["it will be wet", "sun is all there is", "", "it will be cold"]
    assert grouped(first, second).tolist() in ([0, 1, 1, 3], [0, 2, 2, 3])
    assert len(set(grouped(["what is it"] * 2, ["old stone", "new stone"]).tolist())) == 1


def test_what_many_rows_have_in_common_joins_none_of_them():
    texts = [f"{text} thank you very much" for text in strangers(200, 4)] + ["thank you very much"]
    assert grouped(texts).tolist() == list(range(201))


def test_a_chain_without_end_makes_no_giant():
    chain = [" ".join(f"w{i}" for i in range(start, start + 4)) for start in range(1500)]
    links = [" ".join(pair) for pair in pairwise(chain[::4])]
    found = grouped(chain + links)
    sizes = np.bincount(found)
    assert 50 < sizes.max() <= 100


# --- roles ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@repeatable
@given(sentences)
def test_no_text_of_a_role_is_a_part_of_a_text_of_another(found):
    texts = [phrase for sentence in found for phrase in phrases(sentence)]  # no more than a group may have
    texts += strangers(40, 3)  # so that no role is empty
    sets = split_roles(rows_of(texts), EVEN)
    for one, other in combinations(sets.values(), 2):
        assert not overlapping(one.texts, other.texts).any()
    assert sorted(text for part in sets.values() for text in part.texts) == sorted(texts)


def test_rows_that_share_nothing_keep_their_roles():
    texts = strangers(400)
    alone, together = (
        {text: role for role, part in split_roles(rows_of(texts), EVEN, grouped=way).items() for text in part.texts}
        for way in (False, True)
    )
    assert alone == together
    more = [phrase for text in texts[:200] for phrase in phrases(text.split())]
    sets = split_roles(rows_of(more + texts), EVEN)
    assert all(alone[text] is role for role, part in sets.items() for text in part.texts if text in alone)


def test_phrases_follow_their_sentence_and_the_fractions_are_met():
    sentence_texts = strangers(600, 12)
    texts = [phrase for text in sentence_texts for phrase in phrases(text.split())]
    sets = split_roles(rows_of(texts), EVEN)
    assert [len(part) / len(texts) for part in sets.values()] == pytest.approx([0.4, 0.3, 0.3], abs=0.05)
    where = {text: role for role, part in sets.items() for text in part.texts}
    for text in sentence_texts:
        assert len({where[phrase] for phrase in phrases(text.split())}) == 1


def test_asking_for_one_role_is_sharing_all_of_them_out():
    rows = rows_of([phrase for text in strangers(90) for phrase in phrases(text.split())])
    for way in (True, False):
        select = split_roles(rows, EVEN, grouped=way)[Role.SELECT]
        found = has_role(rows, EVEN, Role.SELECT, way)
        assert [text for text, here in zip(rows.texts, found, strict=True) if here] == select.texts


def test_unlabelled_parts_of_held_out_texts_train_nothing():
    texts = strangers(90)
    parts = [" ".join(text.split()[:5]) for text in texts]
    sets = split_roles(rows_of(texts + parts, labels=[0, 1] * 45 + [None] * 90), EVEN)
    assert not overlapping(sets[Role.TRAIN].texts, sets[Role.CERTIFY].texts).any()
    assert len(sets[Role.TRAIN].texts) == 2 * (sets[Role.TRAIN].labels >= 0).sum()


def test_too_few_groups_are_told_from_too_few_rows():
    texts = [" ".join(["word"] * n) for n in range(3, 80)]
    with pytest.raises(UserError, match=r"77 rows that are 1 by the text they share are too few"):
        split_roles(rows_of(texts), EVEN)
