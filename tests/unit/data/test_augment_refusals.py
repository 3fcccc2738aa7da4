"""What copies cannot be made with: settings and arguments that are refused."""

from __future__ import annotations

import numpy as np
import pytest

from tests.kit.copies import KINDS, MASK, NEIGHBOURS, SIZE, M, encoded, made
from ziggurat.config import from_mapping
from ziggurat.data import augmented
from ziggurat.data.tokenizer import Encoded
from ziggurat.errors import UserError
from ziggurat.recipe import AugmentConfig


@pytest.mark.parametrize("offer", [np.zeros((2, 3), int), np.zeros(3, int), np.zeros((3, 0), int)])
def test_candidates_of_another_shape_are_refused(offer):
    with pytest.raises(ValueError, match=r"candidates: must be \(3, at least 1\)"):
        made(encoded([([4],)]), AugmentConfig("tinybert", replace=1.0), candidates=lambda ids: offer)


def test_candidates_that_are_no_ids_are_refused():
    with pytest.raises(ValueError, match="at least 0 and below 50"):
        made(
            encoded([([4],)]),
            AugmentConfig("tinybert", replace=1.0),
            candidates=lambda ids: np.full((len(ids), 2), SIZE),
        )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"neighbours": NEIGHBOURS[:, :2]}, r"neighbours: must be \(50, at least 3\), not \(50, 2\)"),
        ({"neighbours": NEIGHBOURS[1:]}, r"neighbours: must be \(50, at least 3\), not \(49, 4\)"),
        ({"neighbours": NEIGHBOURS + 1}, "neighbours: must be ids, at least 0 and below 50"),
        ({"chunk": 0}, "chunk 0: must be at least 1"),
    ],
)
def test_wrong_arguments_are_refused_before_the_first_copy(changes, says):
    table = changes.get("neighbours", NEIGHBOURS)
    more = {key: value for key, value in changes.items() if key != "neighbours"}
    with pytest.raises(ValueError, match=says):
        augmented(encoded([([4],)]), AugmentConfig(neighbours=3), KINDS, table, MASK, **more)


def test_tokens_that_are_in_no_vocabulary_are_refused():
    config = AugmentConfig(neighbours=M)
    for mask in (-1, SIZE):
        with pytest.raises(ValueError, match=f"mask_id {mask}: must be at least 0 and below 50"):
            augmented(encoded([([4],)]), config, KINDS, NEIGHBOURS, mask)
    for token in (-1, SIZE):
        with pytest.raises(ValueError, match="token id: must be at least 0 and below 50"):
            made(encoded([([token],)]), config)
    with pytest.raises(ValueError, match="at least one token"):
        made(Encoded([np.zeros((0, 2), np.int64)], np.zeros(1, bool)), config)


@pytest.mark.parametrize(
    ("key", "bad", "good"),
    [
        ("kind", ("eda", ""), ("tang", "tinybert")),
        ("copies", (0, -1), (1,)),
        ("mask", (-0.1, 1.1, float("nan"), 0.91), (0.0, 0.9)),
        ("replace", (-0.1, 1.1, float("nan")), (0.0, 0.9)),
        ("ngram", (-0.1, 1.1), (0.0, 1.0)),
        ("longest", (0,), (1,)),
        ("neighbours", (0,), (1,)),
        ("seed", (-1, 2**63), (0, 2**63 - 1)),
    ],
)
def test_a_setting_out_of_range_is_named_and_the_border_allowed(key, bad, good):
    for value in bad:
        with pytest.raises(ValueError, match=rf"^{key} {value!r}: must be "):
            AugmentConfig(**{key: value})
    for value in good:
        assert getattr(AugmentConfig(**{key: value}), key) == value


def test_masking_and_replacing_share_one_draw():
    with pytest.raises(ValueError, match=r"^mask 0.6: must be at most 1 together with replace"):
        AugmentConfig(mask=0.6, replace=0.5)
    assert AugmentConfig("tinybert", mask=0.6, replace=0.5).replaced == 0.5


def test_settings_can_be_a_table_of_a_recipe():
    assert from_mapping(AugmentConfig, {"kind": "tinybert", "replace": 1}, "augment").replaced == 1.0
    with pytest.raises(UserError, match=r"^augment: unknown key 'copy'; did you mean 'copies'"):
        from_mapping(AugmentConfig, {"copy": 3}, "augment")
    with pytest.raises(UserError, match=r"^augment: copies 0: must be at least 1"):
        from_mapping(AugmentConfig, {"copies": 0}, "augment")
