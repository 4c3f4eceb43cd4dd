"""Editing AWS's configuration files (`~/.aws/config`, `~/.aws/credentials`): one profile, and nothing else in them.

The files belong to the user: comments, order, other profiles and settings we don't know stay as they are. So the text
is edited line by line; a parser would lose the comments.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

__all__ = ["config_path", "config_section", "credentials_path", "section_settings", "with_settings", "write_profile"]

_HEADER: Final = re.compile(r"\s*\[\s*(?P<name>[^\]]*?)\s*\]\s*(?:[#;].*)?")
#: A setting of the section itself; indented lines continue the setting above them.
_SETTING: Final = re.compile(r"(?P<key>[A-Za-z0-9_.-]+)\s*=\s*(?P<value>.*?)\s*")


def config_path(environ: Mapping[str, str]) -> Path:
    """Return the path of the AWS config file."""
    return Path(environ.get("AWS_CONFIG_FILE") or "~/.aws/config").expanduser()


def credentials_path(environ: Mapping[str, str]) -> Path:
    """Return the path of the AWS credentials file."""
    return Path(environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").expanduser()


def config_section(profile: str) -> str:
    """Return a profile's section in the config file; in the credentials file it is the bare name."""
    return "default" if profile == "default" else f"profile {profile}"


def section_settings(text: str, section: str) -> dict[str, str] | None:
    """Return the settings of a section (nested ones left out), or None if there is no such section."""
    lines = text.splitlines()
    span = _find(lines, section)
    if span is None:
        return None
    found = (_SETTING.fullmatch(line) for line in lines[span[0] : span[1]])
    return {match["key"]: match["value"] for match in found if match}


def with_settings(text: str, section: str, settings: Mapping[str, str | None]) -> str:
    """Return `text` with these settings in `section`, which is made if it is missing. None removes a setting.

    Applying it twice gives the same text as once.
    """
    lines = text.splitlines()
    span = _find(lines, section)
    if span is None:
        if lines and lines[-1].strip():
            lines.append("")
        lines.append(f"[{section}]")
        span = (len(lines), len(lines))
    start, end = span
    left = dict(settings)
    body: list[str] = []
    dropping = False
    for line in lines[start:end]:
        match = _SETTING.fullmatch(line)
        if match is None:
            # What is indented below a replaced setting was its value.
            if not (dropping and _is_nested(line)):
                body.append(line)
            continue
        dropping = match["key"] in settings
        if not dropping:
            body.append(line)
        elif (value := left.pop(match["key"], None)) is not None:
            body.append(f"{match['key']} = {value}")
    added = [f"{key} = {value}" for key, value in left.items() if value is not None]
    # Behind the last setting, nested ones included: a comment at the end belongs to the section that follows.
    owned = (index for index, line in enumerate(body) if _SETTING.fullmatch(line) or _is_nested(line))
    last = max(owned, default=-1) + 1
    body[last:last] = added
    return "\n".join([*lines[:start], *body, *lines[end:]]) + "\n"


def write_profile(
    profile: str,
    *,
    settings: Mapping[str, str | None],
    credentials: Mapping[str, str | None],
    environ: Mapping[str, str],
) -> tuple[Path, Path]:
    """Put a profile into both files, mode 0600, each wholly or not at all. Return their paths. Raises OSError."""
    from homeport.daemon import write_private

    written: list[Path] = []
    for path, section, values in (
        (config_path(environ), config_section(profile), settings),
        (credentials_path(environ), profile, credentials),
    ):
        # Through symlinks: people keep these files in a repository of dotfiles.
        target = Path(os.path.realpath(path))
        old = target.read_text() if target.exists() else ""
        new = with_settings(old, section, values)
        if new != old or target.stat().st_mode & 0o077:
            write_private(target, new.encode())
        written.append(path)
    return written[0], written[1]


def _find(lines: list[str], section: str) -> tuple[int, int] | None:
    """Return the range of the lines below a section's header, or None."""
    start = None
    for index, line in enumerate(lines):
        match = _HEADER.fullmatch(line)
        if match is None:
            continue
        if start is not None:
            return start, index
        if _same_section(match["name"], section):
            start = index + 1
    return None if start is None else (start, len(lines))


def _is_nested(line: str) -> bool:
    return line[:1].isspace() and bool(line.strip())


def _same_section(found: str, wanted: str) -> bool:
    """Compare section names as AWS does: blanks and quotes around a profile's name don't count."""
    return [part.strip("\"'") for part in found.split()] == wanted.split()
