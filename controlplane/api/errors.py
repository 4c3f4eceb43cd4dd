"""The errors an API client sees. `code` goes out as `__type`, `status` is the HTTP status, `message` is for people.

    ApiError
     ├── ClientException, InvalidParameterException, ...   the shapes of the ECS model, all 400
     ├── (front door)  MissingAuthenticationTokenException, SignatureDoesNotMatch, UnrecognizedClientException, ...
     └── ServerException                                   500: a bug of ours, never raised on purpose

The names are AWS's; clients compare them. A name that has no class here is given as `ApiError(message, code=NAME)`; if
the service's model knows it, the model's HTTP status goes out.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

__all__ = [
    "AccessDeniedException",
    "ApiError",
    "ClientException",
    "ClusterContainsContainerInstancesException",
    "ClusterContainsServicesException",
    "ClusterContainsTasksException",
    "ClusterNotFoundException",
    "ConflictException",
    "InvalidParameterException",
    "ServerException",
    "ServiceNotActiveException",
    "ServiceNotFoundException",
    "TargetNotFoundException",
    "UnsupportedFeatureException",
]


class ApiError(Exception):
    """Parent of all. A class's own name is its wire name.

    `query_code`: the name that the error had when its service spoke the query protocol; clients of that age compare it.
    """

    status = 400
    #: What the error's shape has besides the message.
    members: Mapping[str, object] = MappingProxyType({})

    def __init__(
        self, message: str, *, code: str | None = None, status: int | None = None, query_code: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).__name__
        self.query_code = query_code
        if status is not None:
            self.status = status


class ClientException(ApiError):
    """The request is wrong in a way no other name fits (unknown task definition, invalid container definition)."""


class InvalidParameterException(ApiError):
    """A parameter's value can't be used."""


class ClusterNotFoundException(ApiError):
    """The named cluster doesn't exist or is inactive."""

    def __init__(self, message: str = "Cluster not found.") -> None:
        super().__init__(message)


class ClusterContainsContainerInstancesException(ApiError):
    """The cluster still has registered container instances."""


class ClusterContainsServicesException(ApiError):
    """The cluster still has services."""


class ClusterContainsTasksException(ApiError):
    """The cluster still has tasks."""


class ConflictException(ApiError):
    """A clientToken was used before for another request, which made the resources named."""

    def __init__(self, message: str, resource_ids: Sequence[str]) -> None:
        super().__init__(message)
        self.members = {"resourceIds": list(resource_ids)}


class ServiceNotFoundException(ApiError):
    """The named service doesn't exist."""

    def __init__(self, message: str = "Service not found.") -> None:
        super().__init__(message)


class ServiceNotActiveException(ApiError):
    """The service is being deleted, or is."""

    def __init__(self, message: str = "Service was not ACTIVE.") -> None:
        super().__init__(message)


class TargetNotFoundException(ApiError):
    """The target of an attribute doesn't exist."""


class AccessDeniedException(ApiError):
    """The caller may not do this."""


class UnsupportedFeatureException(ApiError):
    """The feature isn't available; the message says which and what is."""


class ServerException(ApiError):
    """An internal error. The log has the details under the request id."""

    status = 500
