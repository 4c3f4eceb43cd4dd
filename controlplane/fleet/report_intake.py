"""Reports of all hosts: those that arrive in one turn of the event loop are applied together, and make one commit.

What always holds:
 - the reports of a session are applied in their order, and before any later frame of it is (`settle`);
 - what goes wrong with one frame leaves no trace of that frame, ends that session, and touches no other.
"""

import asyncio
from typing import Final, Protocol

import structlog

from controlplane.context import Context
from controlplane.fleet.reports import apply_report
from homeport.ids import InstanceId
from homeport.protocol import Goodbye, Reports

__all__ = ["ReportIntake", "Reporter"]

_log: Final = structlog.get_logger(__name__)

#: Reports that may wait: some milliseconds' work, so that no turn of the event loop becomes long.
MAX_WAITING: Final = 200


class Reporter(Protocol):
    """What the intake needs of a session."""

    @property
    def instance_id(self) -> InstanceId:
        """The host that reports."""
        ...

    def applied(self, reports: Reports, revision: int) -> None:
        """Acknowledge these reports once `revision` is durable."""
        ...

    def end(self, goodbye: Goodbye) -> None:
        """End the session, saying why."""
        ...


class ReportIntake:
    """Takes reports in, and applies them soon. `run` is its life."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._waiting: list[tuple[Reporter, Reports]] = []
        self._count = 0
        self._arrived = asyncio.Event()

    def take(self, session: Reporter, reports: Reports) -> None:
        """Have a frame of reports applied soon; at once if many wait already."""
        self._waiting.append((session, reports))
        self._count += len(reports.tasks)
        self._arrived.set()
        if self._count >= MAX_WAITING:
            self.settle()

    async def run(self) -> None:
        """Apply what is taken in until cancelled; what waits then is lost, and sent again. Raises JournalError."""
        while True:
            await self._arrived.wait()
            self.settle()

    def settle(self) -> None:
        """Apply whatever waits, in one transaction; its acks go out once that is durable."""
        self._arrived.clear()
        if not self._waiting:
            return
        waiting, self._waiting, self._count = self._waiting, [], 0
        state = self._context.state
        with state.transaction():
            applied = [(session, reports) for session, reports in waiting if self._apply(session, reports)]
        for session, reports in applied:
            session.applied(reports, state.revision)

    def _apply(self, session: Reporter, reports: Reports) -> bool:
        try:
            with self._context.state.transaction():
                for report in reports.tasks:
                    apply_report(self._context, session.instance_id, report)
        except Exception:  # noqa: BLE001 - a bug; other hosts' reports must not be lost for it
            _log.exception("reports could not be applied", instance=session.instance_id)
            session.end(Goodbye(reason="the control plane could not take a report; its log says why", retry_after_s=60))
            return False
        return True
