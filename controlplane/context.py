"""What every command needs, handed in: the state, the time, chance, and the names of this installation."""

import random
from dataclasses import dataclass, field

from controlplane.logs.api import LogStore
from controlplane.logs.insights.queries import Queries
from controlplane.scheduling.standing import StandingRankings
from controlplane.state.state import State
from homeport.arn import ArnFactory
from homeport.clock import Clock

__all__ = ["Context", "Endpoints"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """Under which URLs this control plane is reached. Filled in once the listeners are bound."""

    #: For clients on this machine, e.g. http://127.0.0.1:6180.
    local_url: str
    #: For other hosts; None if it listens on loopback only.
    network_url: str | None
    #: "sha256:HEX" of the CA certificate's DER, what `join --ca-hash` pins; None without TLS.
    ca_hash: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Handed to every command and reconciler; holds no state of its own, but for what can be made anew from `state`."""

    state: State
    clock: Clock
    random: random.Random
    arns: ArnFactory
    endpoints: Endpoints
    logs: LogStore
    #: Containers whose definition names no log driver have their output shipped, too.
    collect_logs: bool = True
    #: Of Logs Insights; `run_queries` runs them.
    queries: Queries = field(default_factory=Queries)
    rankings: StandingRankings = field(default_factory=StandingRankings)
