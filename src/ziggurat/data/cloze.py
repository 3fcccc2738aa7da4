"""Questions made of texts themselves, to learn answering from where few questions are written.

A span of a sentence is the answer; a question word that suits it and words around it, some left out, sometimes those
behind it first, are the question: noisy clozes (Lewis et al. 2019, "Unsupervised question answering by cloze
translation"), without their parser and translator. Names and numbers are drawn more often than other spans: they are
what people ask for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ziggurat.data.squad import Questions

LONGEST = 4  # words of an answer
REACH = (2, 10)  # words of the sentence on either side that may be in the question: drawn between these
LEFT_OUT = 0.15  # share of them that is not
LIKELY, PART = 4.0, 0.5  # weights of a whole name or number, and of a part of one; of other spans 1
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])")
WORD = re.compile(r"\S+")
YEAR = re.compile(r"1\d{3}|20\d{2}")
EDGE = ",.;:()[]\"'"
_WORDS = """
    a about after all also an and any are as at be been before being between but by did do does during for from had
    has have he her his how in into is it its many more most no not of on one or other over she since some such than
    that the their them then there these they this those to under until was were what when where which while who
    whom whose why with
"""
FUNCTION_WORDS = frozenset(_WORDS.split())


def cloze_questions(questions: Questions, per_sentence: int, seed: int = 0) -> Questions:
    """Up to so many questions about every sentence of the contexts, each context once; their role and articles stay.

    The same for the same contexts in the same order; what is made of one does not depend on the others. ValueError for
    `per_sentence` below 1.
    """
    if per_sentence < 1:
        raise ValueError(f"per_sentence {per_sentence}: must be at least 1")
    made: list[tuple[str, str, str, str, tuple[str, int]]] = []
    for context, article in dict(zip(questions.contexts, questions.articles, strict=True)).items():
        # The random numbers belong to the text: whatever stands before it in the file.
        draw = np.random.default_rng([seed, *context.encode("utf-8", "backslashreplace")])
        for text, answer in _of_context(context, per_sentence, draw):
            made.append((f"cloze-{len(made)}", text, context, article, answer))
    ids, texts, contexts, articles, answers = (list(column) for column in zip(*made, strict=True)) if made else [[]] * 5
    source = f"cloze questions from {questions.source}"
    return Questions(ids, texts, contexts, articles, [(one,) for one in answers], questions.role, source)


@dataclass(frozen=True)
class _Sentence:
    words: list[str]
    begins: list[int]  # the character of the context with which each word begins

    def answer(self, first: int, last: int) -> tuple[str, int] | None:
        """The words from `first` to `last` without what is no part of an answer at its edges, and where it begins."""
        length = self.begins[last] + len(self.words[last]) - self.begins[first]
        gaps = [self.begins[i + 1] - self.begins[i] - len(self.words[i]) for i in range(first, last)]
        whole = "".join(word + " " * gap for word, gap in zip(self.words[first:last], gaps, strict=True))
        whole += self.words[last]
        bare = whole.lstrip(EDGE)
        stripped = bare.rstrip(EDGE)
        return (stripped, self.begins[first] + length - len(bare)) if stripped else None


def _of_context(context: str, count: int, draw: np.random.Generator) -> Iterator[tuple[str, tuple[str, int]]]:
    edges = [0, *(found.end() for found in SENTENCE_END.finditer(context)), len(context)]
    for start, stop in pairwise(edges):
        found = list(WORD.finditer(context, start, stop))
        sentence = _Sentence([each.group() for each in found], [each.start() for each in found])
        spans = list(_spans(sentence.words))
        if not spans:
            continue
        weights = np.array([_weight(sentence.words, *span) for span in spans])
        for place in draw.choice(len(spans), min(count, len(spans)), replace=False, p=weights / weights.sum()):
            first, last = spans[place]
            answer = sentence.answer(first, last)
            around = _around(sentence.words, first, last, draw)
            if answer is not None and context.startswith(*answer) and len(around) > 2:
                yield f"{_question_word(answer[0], draw)} {' '.join(around)}?", answer


def _spans(words: list[str]) -> Iterator[tuple[int, int]]:
    """First and last word of every run that could be an answer: no function word at its ends, no stop inside."""
    for first, word in enumerate(words):
        if _bare(word) in FUNCTION_WORDS or not _bare(word):
            continue
        for last in range(first, min(first + LONGEST, len(words))):
            if _bare(words[last]) not in FUNCTION_WORDS and _bare(words[last]):
                yield first, last
            if words[last][-1] in ",;:.)":
                break


def _weight(words: list[str], first: int, last: int) -> float:
    run = words[first : last + 1]
    names = all(word[:1].isupper() or _bare(word) in FUNCTION_WORDS for word in run)
    if not names and not any(letter.isdigit() for word in run for letter in word):
        return 1.0
    beside = [*words[max(0, first - 1) : first], *words[last + 1 : last + 2]]
    return PART if names and any(word[:1].isupper() for word in beside) else LIKELY


def _around(words: list[str], first: int, last: int, draw: np.random.Generator) -> list[str]:
    before = words[:first][-draw.integers(*REACH, endpoint=True) :]
    after = words[last + 1 :][: draw.integers(*REACH, endpoint=True)]
    order = after + before if draw.random() < 0.5 else before + after
    return [bare for word in order if draw.random() >= LEFT_OUT and (bare := word.strip(EDGE))]


def _question_word(answer: str, draw: np.random.Generator) -> str:
    if YEAR.fullmatch(answer):
        return "What year"
    if any(letter.isdigit() for letter in answer):
        choices = ["How many", "How much", "What number"]
    elif answer[:1].isupper():
        choices = ["Who", "What", "Where", "Which"]
    else:
        choices = ["What", "What", "What", "How", "Which"]
    return str(draw.choice(choices))


def _bare(word: str) -> str:
    return word.strip(EDGE).lower()
