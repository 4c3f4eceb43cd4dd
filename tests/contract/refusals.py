"""Catching the error of a boto3 call."""

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

__all__ = ["invalid", "refused"]


def refused(call: Callable[..., Any], /, **arguments: Any) -> tuple[str, str]:
    """Make a call that must fail with HTTP 400 and return the error's code and message."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response = caught.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 400
    return response["Error"]["Code"], response["Error"]["Message"]


def invalid(call: Callable[..., Any], /, **arguments: Any) -> str:
    """Make a call that must be refused as a ValidationException, and return its message."""
    code, message = refused(call, **arguments)
    assert code == "ValidationException"
    return message
