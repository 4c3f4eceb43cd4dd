"""PAUSE lifecycle hooks: a deployment waits at a stage until somebody lets it go on, or its time is over.

In a rolling deployment the stages come to three gates: before the first task of the new revision starts; when all of it
is healthy, before the rest of the old goes; and when the old is gone, before the deployment is complete. There is no
traffic to shift, so the stages of a shift lie at the second gate, and the one after it at the third. A rollback waits
for nobody.
"""

from collections.abc import Iterator
from typing import Any, Final

from msgspec.structs import replace

from controlplane.events.notes import ServiceEvent
from controlplane.services.deciding.breaker import fail
from controlplane.services.deciding.draft import Draft
from controlplane.state.service_records import DeploymentRecord, HookState

__all__ = ["BEFORE_COMPLETION", "BEFORE_RETIRING", "BEFORE_STARTING", "GATES", "configured", "hook_holds", "waiting"]

#: The stages at each gate, in the order in which they are passed.
BEFORE_STARTING: Final = ("RECONCILE_SERVICE", "PRE_SCALE_UP")
BEFORE_RETIRING: Final = (
    "POST_SCALE_UP",
    "TEST_TRAFFIC_SHIFT",
    "POST_TEST_TRAFFIC_SHIFT",
    "PRE_PRODUCTION_TRAFFIC_SHIFT",
    "PRODUCTION_TRAFFIC_SHIFT",
)
BEFORE_COMPLETION: Final = ("POST_PRODUCTION_TRAFFIC_SHIFT",)
GATES: Final = (BEFORE_STARTING, BEFORE_RETIRING, BEFORE_COMPLETION)

#: What a deployment does after each gate.
_NEXT: Final = {BEFORE_STARTING: "SCALE_UP", BEFORE_RETIRING: "CLEAN_UP", BEFORE_COMPLETION: "CLEAN_UP"}
_DEFAULT_TIMEOUT_MIN: Final = 1440


def waiting(deployment: DeploymentRecord) -> bool:
    """Whether a hook holds the deployment: its progress deadline doesn't run meanwhile."""
    return any(deployment.lifecycle_stage in gate for gate in GATES)


def configured(draft: Draft, deployment: DeploymentRecord, gate: tuple[str, ...]) -> bool:
    """Whether the deployment has to pass any hook at a gate."""
    return next(_hooks(draft, deployment, gate), None) is not None


def hook_holds(draft: Draft, deployment_id: str, gate: tuple[str, ...]) -> bool:
    """Pass the hooks of a gate that the deployment has come to, one after another. Return whether one holds it.

    A hook that has failed, or timed out with the action ROLLBACK, ends the deployment.
    """
    for stage, hook_id, document in _hooks(draft, draft.deployments[deployment_id], gate):
        deployment = draft.deployments[deployment_id]
        state = next((hook for hook in deployment.hooks if hook.id == hook_id), None)
        if state is None:
            _arrive(draft, deployment, stage, hook_id, document)
            return True
        if state.status == "AWAITING_ACTION" and state.expires_at is not None:
            draft.wake(state.expires_at)
            if draft.now < state.expires_at:
                return True
            state = replace(state, status="TIMED_OUT")
            deployment = _put_state(draft, deployment, state)
        if state.status == "AWAITING_ACTION":
            return True
        if state.status == "FAILED" or (state.status == "TIMED_OUT" and state.timeout_action != "CONTINUE"):
            why = f"lifecycle hook {hook_id} at {stage} {'timed out' if state.status == 'TIMED_OUT' else 'failed'}."
            fail(draft, deployment, reason=f"ECS deployment {deployment.id} failed: {why}", why=why, rollback=True)
            return True
        if deployment.lifecycle_stage == stage:
            # The wait was none of the tasks' doing.
            draft.put(replace(deployment, lifecycle_stage=_NEXT[gate], progressed_at=draft.now))
    return False


def _hooks(
    draft: Draft, deployment: DeploymentRecord, gate: tuple[str, ...]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (stage, hook id, hook) in the order in which they are passed."""
    if deployment.rollback_of:
        return
    hooks = draft.service.deployment_configuration.get("lifecycleHooks") or ()
    for stage in gate:
        if stage == "RECONCILE_SERVICE" and len(deployment.source_revisions) < 2:
            continue
        for number, hook in enumerate(hooks):
            if hook.get("targetType") == "PAUSE" and stage in hook.get("lifecycleStages", ()):
                yield stage, f"{deployment.arn_id}-{number}-{stage.lower().replace('_', '-')}", hook


def _arrive(draft: Draft, deployment: DeploymentRecord, stage: str, hook_id: str, hook: dict[str, Any]) -> None:
    timeout = hook.get("timeoutConfiguration") or {}
    expires_at = draft.now + 60.0 * timeout.get("timeoutInMinutes", _DEFAULT_TIMEOUT_MIN)
    state = HookState(id=hook_id, stage=stage, expires_at=expires_at, timeout_action=timeout.get("action", "ROLLBACK"))
    draft.put(replace(deployment, hooks=(*deployment.hooks, state), lifecycle_stage=stage))
    draft.wake(expires_at)
    draft.say(
        ServiceEvent.HOOK_WAITING,
        f"(deployment {deployment.id}) waits at {stage} until ContinueServiceDeployment is called (hook {hook_id}).",
    )


def _put_state(draft: Draft, deployment: DeploymentRecord, state: HookState) -> DeploymentRecord:
    hooks = tuple(state if hook.id == state.id else hook for hook in deployment.hooks)
    changed = replace(deployment, hooks=hooks)
    draft.put(changed)
    return changed
