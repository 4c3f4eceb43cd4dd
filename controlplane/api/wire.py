"""Which wire form each service speaks."""

from controlplane.api.codec import Codec, JsonCodec, QueryCodec
from controlplane.api.model import Service
from controlplane.api.rest import RestJsonCodec

__all__ = ["codec_of"]


def codec_of(service: Service) -> Codec:
    """Return the codec of a service."""
    if service.protocol == "query":
        return QueryCodec(service.xml_namespace)
    if service.protocol == "rest-json":
        return RestJsonCodec(service)
    return JsonCodec(service.json_version)
