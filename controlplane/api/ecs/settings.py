"""Account settings, and where agents connect to.

Most of ECS's settings switch things of AWS's own. Here each has the one value that is true of Homeport, and asking for
another is refused rather than kept without effect. The exceptions: `containerInsights` is what new clusters get, and
`defaultLogDriverMode` how the output of containers reaches their logs where a definition is silent.
"""

from typing import Final, NamedTuple

from controlplane.api import pagination
from controlplane.api.errors import InvalidParameterException
from controlplane.api.registry import Document, operation
from controlplane.context import Context
from controlplane.state.records import SettingRecord

__all__ = ["account_setting"]

#: What ListAccountSettings gives out in one page.
_MAX_RESULTS: Final = 10


class _Setting(NamedTuple):
    """A setting's value unless set, and what it can be set to."""

    default: str
    values: tuple[str, ...]

    @classmethod
    def fixed(cls, value: str) -> "_Setting":
        return cls(value, (value,))


_SETTINGS: Final = {
    "awsvpcTrunking": _Setting.fixed("disabled"),
    "containerInsights": _Setting("disabled", ("enabled", "disabled", "enhanced")),
    "containerInstanceLongArnFormat": _Setting.fixed("enabled"),
    "defaultLogDriverMode": _Setting("blocking", ("blocking", "non-blocking")),
    "fargateEventWindows": _Setting.fixed("disabled"),
    "fargateFIPSMode": _Setting.fixed("disabled"),
    "fargateTaskRetirementWaitPeriod": _Setting.fixed("7"),
    "guardDutyActivate": _Setting.fixed("off"),
    "serviceLongArnFormat": _Setting.fixed("enabled"),
    "tagResourceAuthorization": _Setting.fixed("off"),
    "taskLongArnFormat": _Setting.fixed("enabled"),
}


def account_setting(context: Context, name: str) -> str:
    """Return a setting's value in effect."""
    record = _record(context, name)
    return _SETTINGS[name].default if record is None else str(record.value["value"])


@operation("ecs", "ListAccountSettings")
def list_account_settings(context: Context, request: Document) -> Document:
    """List what was set; with effectiveSettings, also what holds because nothing was set."""
    wanted = request.get("name")
    if "value" in request and wanted is None:
        raise InvalidParameterException("value can be given only together with name.")
    after = pagination.after(request) or ""
    found = (
        name
        for name in sorted(_SETTINGS)
        if name > after
        and wanted in (None, name)
        and (request.get("effectiveSettings") or _record(context, name))
        and request.get("value") in (None, account_setting(context, name))
    )
    page = pagination.take(found, request, key=lambda name: name, maximum=_MAX_RESULTS)
    return {"settings": [_render(context, name) for name in page.items], **page.more}


@operation("ecs", "PutAccountSetting")
def put_account_setting(context: Context, request: Document) -> Document:
    """Set a setting. All access keys are one principal, the account's root: there is nothing finer to set it for."""
    return _put(context, request)


@operation("ecs", "PutAccountSettingDefault")
def put_account_setting_default(context: Context, request: Document) -> Document:
    """Set a setting for the account, the same thing here."""
    return _put(context, request)


@operation("ecs", "DeleteAccountSetting")
def delete_account_setting(context: Context, request: Document) -> Document:
    """Go back to a setting's default; the answer is the setting as it was."""
    _check_principal(context, request)
    name = request["name"]
    before = _render(context, name)
    record = _record(context, name)
    if record is not None:
        with context.state.transaction() as transaction:
            transaction.delete(record)
    return {"setting": before}


@operation("ecs", "DiscoverPollEndpoint")
def discover_poll_endpoint(context: Context, request: Document) -> Document:  # noqa: ARG001
    """Return where agents connect to: this control plane, as other hosts reach it."""
    url = context.endpoints.network_url or context.endpoints.local_url
    return {"endpoint": url, "telemetryEndpoint": url}


def _put(context: Context, request: Document) -> Document:
    _check_principal(context, request)
    name, value = request["name"], request["value"]
    allowed = _SETTINGS[name].values
    if value not in allowed:
        raise InvalidParameterException(
            f"Invalid value '{value:.100}' for the setting {name}. In Homeport it can be {' or '.join(allowed)}."
        )
    with context.state.transaction() as transaction:
        transaction.put(SettingRecord(name=_key(name), value={"value": value}))
    return {"setting": _render(context, name)}


def _check_principal(context: Context, request: Document) -> None:
    principal = request.get("principalArn")
    if principal not in (None, "", context.arns.root()):
        raise InvalidParameterException(
            f"principalArn can only be {context.arns.root()}, since Homeport has no users or roles, but is"
            f" '{principal:.300}'."
        )


def _key(name: str) -> str:
    return f"account-setting/{name}"


def _record(context: Context, name: str) -> SettingRecord | None:
    return context.state.settings.get(_key(name))


def _render(context: Context, name: str) -> Document:
    return {
        "name": name,
        "value": account_setting(context, name),
        "principalArn": context.arns.root(),
        "type": "user",
    }
