"""Data room: files and hub names in, rows with roles and packed batches out. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ziggurat.lazy import lazily

if TYPE_CHECKING:
    from ziggurat.data.augment import augmented
    from ziggurat.data.catalogue import TASKS
    from ziggurat.data.dataset import Dataset, Fractions, Role, as_dataset, load, split_roles
    from ziggurat.data.groups import overlapping, stand_ins
    from ziggurat.data.labels import SPAN_ENDS, label_array, names_of, problem_of
    from ziggurat.data.packing import PackedBatch, by_length, cumulate, in_order, pack
    from ziggurat.data.sources import DEFAULT_COLUMNS, Columns, Rows, read_rows
    from ziggurat.data.squad import holds_questions, read_questions
    from ziggurat.data.tokenizer import CONTINUES, SPECIAL, STARTS, TextTokenizer
    from ziggurat.data.windows import windows_of

_HOMES = {
    "CONTINUES": "ziggurat.data.tokenizer",
    "Columns": "ziggurat.data.sources",
    "DEFAULT_COLUMNS": "ziggurat.data.sources",
    "Dataset": "ziggurat.data.dataset",
    "Fractions": "ziggurat.data.dataset",
    "PackedBatch": "ziggurat.data.packing",
    "Role": "ziggurat.data.dataset",
    "Rows": "ziggurat.data.sources",
    "SPAN_ENDS": "ziggurat.data.labels",
    "SPECIAL": "ziggurat.data.tokenizer",
    "STARTS": "ziggurat.data.tokenizer",
    "TASKS": "ziggurat.data.catalogue",
    "TextTokenizer": "ziggurat.data.tokenizer",
    "as_dataset": "ziggurat.data.dataset",
    "augmented": "ziggurat.data.augment",
    "by_length": "ziggurat.data.packing",
    "cumulate": "ziggurat.data.packing",
    "holds_questions": "ziggurat.data.squad",
    "in_order": "ziggurat.data.packing",
    "label_array": "ziggurat.data.labels",
    "load": "ziggurat.data.dataset",
    "names_of": "ziggurat.data.labels",
    "overlapping": "ziggurat.data.groups",
    "pack": "ziggurat.data.packing",
    "problem_of": "ziggurat.data.labels",
    "read_questions": "ziggurat.data.squad",
    "read_rows": "ziggurat.data.sources",
    "split_roles": "ziggurat.data.dataset",
    "stand_ins": "ziggurat.data.groups",
    "windows_of": "ziggurat.data.windows",
}
__all__ = [
    "CONTINUES",
    "Columns",
    "DEFAULT_COLUMNS",
    "Dataset",
    "Fractions",
    "PackedBatch",
    "Role",
    "Rows",
    "SPAN_ENDS",
    "SPECIAL",
    "STARTS",
    "TASKS",
    "TextTokenizer",
    "as_dataset",
    "augmented",
    "by_length",
    "cumulate",
    "holds_questions",
    "in_order",
    "label_array",
    "load",
    "names_of",
    "overlapping",
    "pack",
    "problem_of",
    "read_questions",
    "read_rows",
    "split_roles",
    "stand_ins",
    "windows_of",
]

__getattr__ = lazily(__name__, _HOMES)
