"""What a host may say of itself: sizes, and ECS's rules for attribute names and values."""

import re
from typing import Final

from homeport.protocol import HostFacts

__all__ = ["FactsRefused", "check_facts"]

#: ECS's rules of `Attribute.name` and `.value`; an empty value stands for an attribute without one.
_NAME: Final = re.compile(r"[A-Za-z0-9_./\\-]{1,128}", re.ASCII)
_VALUE: Final = re.compile(r"(?! )[A-Za-z0-9_./\\@: -]{0,128}(?<! )", re.ASCII)

#: Far above what any agent sends, well below what could hurt.
MAX_ATTRIBUTES: Final = 256
MAX_PORTS: Final = 1024
MAX_GPUS: Final = 1024
MAX_TEXT: Final = 255
#: ECS renders amounts as 32-bit integers.
MAX_AMOUNT: Final = 2**31 - 1


class FactsRefused(Exception):
    """A host's facts can't be used; the text names the fact and the limit."""


def check_facts(facts: HostFacts) -> None:
    """Raise FactsRefused at the first fact that can't be used."""
    if not facts.hostname:
        raise FactsRefused("hostname is empty")
    for name in ("hostname", "agent_version", "docker_version", "metrics_address"):
        text = getattr(facts, name)
        if len(text) > MAX_TEXT or not text.isprintable():
            raise FactsRefused(f"{name} must be at most {MAX_TEXT} printable characters")
    amounts = {
        "cpu_units": facts.resources.cpu_units,
        "memory_mib": facts.resources.memory_mib,
        "gpus": facts.resources.gpus,
        "disk_mib": facts.disk_mib,
    }
    for name, amount in amounts.items():
        if not 0 <= amount <= MAX_AMOUNT:
            raise FactsRefused(f"{name} must be between 0 and {MAX_AMOUNT}, got {amount}")
    _check_ports(facts)
    _check_gpus(facts)
    _check_attributes(facts.attributes)


def _check_ports(facts: HostFacts) -> None:
    if len(facts.resources.ports) > MAX_PORTS:
        raise FactsRefused(f"at most {MAX_PORTS} ports can be reserved, got {len(facts.resources.ports)}")
    for _, port in facts.resources.ports:
        if not 0 < port < 65536:
            raise FactsRefused(f"a reserved port must be between 1 and 65535, got {port}")


def _check_gpus(facts: HostFacts) -> None:
    ids = facts.gpu_ids
    if len(ids) > MAX_GPUS or len(set(ids)) != len(ids):
        raise FactsRefused(f"gpu_ids must be at most {MAX_GPUS} different ids, got {len(ids)}")
    if any(not 0 < len(gpu_id) <= MAX_TEXT or not gpu_id.isprintable() for gpu_id in ids):
        raise FactsRefused(f"each of gpu_ids must be 1 to {MAX_TEXT} printable characters")


def _check_attributes(attributes: dict[str, str]) -> None:
    if len(attributes) > MAX_ATTRIBUTES:
        raise FactsRefused(f"a host can have at most {MAX_ATTRIBUTES} attributes, got {len(attributes)}")
    for name, value in attributes.items():
        if not _NAME.fullmatch(name):
            raise FactsRefused(
                f"attribute name {name[:140]!r} must be 1 to 128 letters, numbers, hyphens, underscores, "
                "forward slashes, back slashes or periods"
            )
        if not _VALUE.fullmatch(value):
            raise FactsRefused(
                f"the value of attribute {name} must be 1 to 128 letters, numbers, hyphens, underscores, periods, "
                "at signs, slashes, colons or spaces, and neither start nor end with a space"
            )
