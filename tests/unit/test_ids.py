"""Ids: their form, and that they come from the source handed in."""

import random
import uuid

from homeport.ids import new_hex_id, new_uuid


def test_a_uuid_is_that_of_the_standard_library_made_of_the_same_bits() -> None:
    ours, theirs = random.Random(1), random.Random(1)
    for _ in range(200):
        assert new_uuid(ours) == str(uuid.UUID(int=theirs.getrandbits(128), version=4))


def test_a_hex_id_always_has_32_digits() -> None:
    source = random.Random(1)
    assert {len(new_hex_id(source)) for _ in range(2000)} == {32}
