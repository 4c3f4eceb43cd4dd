"""Ids: their form, and that they come from the source handed in."""

import hashlib
import random
import uuid

import pytest

from homeport.ids import OsRandom, new_hex_id, new_uuid


def test_a_uuid_is_that_of_the_standard_library_made_of_the_same_bits() -> None:
    ours, theirs = random.Random(1), random.Random(1)
    for _ in range(200):
        assert new_uuid(ours) == str(uuid.UUID(int=theirs.getrandbits(128), version=4))


def test_a_hex_id_always_has_32_digits() -> None:
    source = random.Random(1)
    assert {len(new_hex_id(source)) for _ in range(2000)} == {32}


def test_the_systems_randomness_comes_in_blocks_and_no_part_of_it_comes_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def urandom(size: int) -> bytes:
        calls.append(size)
        return hashlib.shake_128(len(calls).to_bytes(4, "big")).digest(size)

    monkeypatch.setattr("os.urandom", urandom)
    source = OsRandom()
    assert len({source.getrandbits(128) for _ in range(10_000)}) == 10_000
    assert len(calls) == 40


@pytest.mark.parametrize("bits", [0, 1, 7, 8, 9, 128, 100_003])
def test_a_number_has_as_many_bits_as_asked_for(bits: int) -> None:
    source = OsRandom()
    found = [source.getrandbits(bits) for _ in range(200)]
    assert max(found).bit_length() <= bits
    assert max(found).bit_length() >= bits - 7 * (bits > 1)


def test_random_choices_come_from_the_systems_randomness_too() -> None:
    source = OsRandom()
    assert {source.randrange(10) for _ in range(1000)} == set(range(10))
    with pytest.raises(ValueError, match="non-negative"):
        source.getrandbits(-1)
