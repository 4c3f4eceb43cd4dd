"""Prometheus http_sd: which addresses to scrape, one group per host, with labels that say what the host is.

Label names follow Prometheus' own discovery: `__meta_homeport_*`, attributes as `__meta_homeport_attribute_NAME` with
every character that a label name can't have made an underscore.
"""

import ipaddress
import re
from typing import Any, Final

from controlplane.state.records import InstanceRecord
from controlplane.state.state import State

__all__ = ["reachable_address", "targets"]

_NOT_IN_LABELS: Final = re.compile(r"[^A-Za-z0-9_]")

TargetGroup = dict[str, Any]


def targets(state: State, *, own_address: str, own_scheme: str) -> list[TargetGroup]:
    """Return the target groups: this control plane first, then every registered host that can be scraped.

    `own_address`: HOST:PORT under which the asker reached this control plane, `own_scheme`: http or https.
    """
    own = {"__meta_homeport_job": "controlplane", "__scheme__": own_scheme}
    groups: list[TargetGroup] = [{"targets": [own_address], "labels": own}]
    for instance in state.instances:
        if instance.status == "INACTIVE":
            continue
        presence = state.presence.of(instance.id)
        address = reachable_address(
            instance.facts.metrics_address,
            session_address="" if presence is None else presence.address,
            own_host=own_address.rpartition(":")[0] or own_address,
        )
        if address is not None:
            groups.append({"targets": [address], "labels": _labels(instance)})
    return groups


def reachable_address(told: str, *, session_address: str, own_host: str) -> str | None:
    """Return the HOST:PORT to scrape an agent at; None if it serves no metrics, or none that others can reach.

    An agent that listens on every address tells 0.0.0.0 or [::]: then it is where its session came from or, if that is
    loopback and so this machine, where this control plane was asked (`own_host`). One that listens on loopback can be
    reached only if it shares this machine.
    """
    host, separator, port = told.rpartition(":")
    if not separator or not port.isdecimal():
        return None
    session = _ip(session_address)
    same_machine = session is not None and session.is_loopback
    listening = _ip(host.strip("[]"))
    if host in {"", "*"} or (listening is not None and listening.is_unspecified):
        if session is None:
            return None
        reached = own_host if same_machine else f"[{session}]" if session.version == 6 else str(session)
        return f"{reached}:{port}"
    loopback = host == "localhost" or (listening is not None and listening.is_loopback)
    return None if loopback and not same_machine else told


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _labels(instance: InstanceRecord) -> dict[str, str]:
    labels = {
        "__meta_homeport_job": "agent",
        "__meta_homeport_instance_id": instance.id,
        "__meta_homeport_cluster": instance.cluster,
        "__meta_homeport_hostname": instance.facts.hostname,
        "__meta_homeport_status": instance.status,
        "__meta_homeport_agent_version": instance.facts.agent_version,
    }
    for name, value in sorted(instance.all_attributes.items()):
        labels[f"__meta_homeport_attribute_{_NOT_IN_LABELS.sub('_', name)}"] = value
    return labels
