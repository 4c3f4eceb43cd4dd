"""Importing this first imports structlog without rich. It is for daemons, which never draw.

structlog imports rich wherever that is installed, for tracebacks in colours; the command line needs rich, so it is. Our
logs have their tracebacks as text (`homeport.daemon`), and without rich a daemon takes 3 MB less. structlog has no
setting for it: a None in `sys.modules`, which makes an import fail, stands there as long as structlog is imported.
"""

import sys

_rich = sys.modules.get("rich")
sys.modules["rich"] = None  # type: ignore[assignment]  # as Python's documentation has it
try:
    import structlog  # noqa: F401
finally:
    del sys.modules["rich"]
    if _rich is not None:
        sys.modules["rich"] = _rich
