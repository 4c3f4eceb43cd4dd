"""STS, as far as ECS clients ask for it: who am I?"""

from controlplane.api.registry import Document, operation
from controlplane.context import Context

__all__: list[str] = []


@operation("sts", "GetCallerIdentity")
def get_caller_identity(context: Context, request: Document) -> Document:  # noqa: ARG001
    """Return the account; every access key is the account's own."""
    arns = context.arns
    return {"UserId": arns.account, "Account": arns.account, "Arn": arns.root()}
