"""Catching the error of a boto3 call."""

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

__all__ = ["refused"]


def refused(call: Callable[..., Any], /, **arguments: Any) -> tuple[str, str]:
    """Make a call that must fail with HTTP 400 and return the error's code and message."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response = caught.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 400
    return response["Error"]["Code"], response["Error"]["Message"]
