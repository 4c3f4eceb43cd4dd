"""Pages and their tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.api import pagination
from controlplane.api.errors import InvalidParameterException


@given(st.sets(st.text(max_size=8)), st.integers(1, 100))
def test_pages_give_out_each_key_once_in_order(keys: set[str], size: int) -> None:
    ordered = sorted(keys)
    request: dict[str, object] = {"maxResults": size}
    found: list[str] = []
    while True:
        after = pagination.after(request)
        page = pagination.take((k for k in ordered if after is None or k > after), request, key=lambda k: k)
        found += page.items
        assert len(page.items) <= size
        if not page.more:
            break
        request |= page.more
    assert found == ordered


def test_a_page_reads_one_item_more_and_no_further() -> None:
    items = iter(range(10))
    pagination.take(items, {"maxResults": 3}, key=str)
    assert next(items) == 4


@pytest.mark.parametrize("size", [0, -1, 101])
def test_sizes_outside_the_limits_are_refused(size: int) -> None:
    with pytest.raises(InvalidParameterException, match="between 1 and 100"):
        pagination.page_size({"maxResults": size})


def test_the_size_left_out_is_the_default() -> None:
    assert pagination.page_size({}) == 100
    assert pagination.page_size({}, maximum=10) == 10
    assert pagination.page_size({}, default=50) == 50


@given(st.text(max_size=30))
def test_no_token_makes_anything_but_a_refusal(token: str) -> None:
    try:
        key = pagination.decode_token(token)
    except InvalidParameterException:
        return
    assert pagination.decode_token(pagination.encode_token(key)) == key


@given(st.text())
def test_a_token_says_its_key(key: str) -> None:
    assert pagination.decode_token(pagination.encode_token(key)) == key
