"""The rules for names of log groups, as CloudWatch Logs has them. Pure."""

import re
from typing import Final

__all__ = ["check_group_name"]

_GROUP: Final = re.compile(r"[.\-_/#A-Za-z0-9]{1,512}")


def check_group_name(name: str) -> str:
    """Return what is wrong with a log group's name, as the end of a sentence; "" if nothing is."""
    if _GROUP.fullmatch(name):
        return ""
    return "must be 1 to 512 characters of a-z, A-Z, 0-9, '_', '-', '/', '.' and '#'"
