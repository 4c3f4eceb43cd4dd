"""Services that tools for ECS ask in passing, with the one honest answer: there is nothing here.

Without an answer those tools stop, though they need nothing of these services.
"""

from controlplane.api.errors import ApiError
from controlplane.api.registry import Document, operation
from controlplane.context import Context

__all__: list[str] = []


@operation("sqs", "GetQueueUrl")
def get_queue_url(context: Context, request: Document) -> Document:  # noqa: ARG001
    """Say that there is no such queue."""
    raise ApiError(
        "The specified queue does not exist.",
        code="QueueDoesNotExist",
        query_code="AWS.SimpleQueueService.NonExistentQueue",
    )


@operation("secretsmanager", "ListSecrets")
def list_secrets(context: Context, request: Document) -> Document:  # noqa: ARG001
    """Say that there are no secrets."""
    return {"SecretList": []}
