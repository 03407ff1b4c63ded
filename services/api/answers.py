"""What the api answers: JSON, and every failure that has a meaning as a status and `{error, faults}`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

from bus_schemas.ipam import ServiceAddresses
from bus_schemas.manifests import Fault, Read, Rejected, to_manifest
from bus_schemas.policy import PolicyStatus
from chassis.errors import Conflict, Unavailable
from chassis.errors import Rejected as BusRejected
from services.api.origin import foreign
from services.api.requests import Decision, Refused, Stored

BODY_LIMIT: web.AppKey[int] = web.AppKey("body limit", int)
"""Bytes of one request's body."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_STATUS_OF = {
    "invalid": HTTPStatus.UNPROCESSABLE_ENTITY,
    "missing": HTTPStatus.NOT_FOUND,
    "conflict": HTTPStatus.CONFLICT,
    "too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
}


class Problem(Exception):
    """An answer other than success."""

    def __init__(self, status: int, error: str, faults: Sequence[dict[str, Any]] = (), *, unknown: str = "") -> None:
        """`unknown`: what there is not, where that is no object, but the very kind that is asked for."""
        super().__init__(error)
        self.status = status
        self.error = error
        self.faults = list(faults)
        self.unknown = unknown


def document(
    stored: Stored, status: PolicyStatus | None = None, given: ServiceAddresses | None = None
) -> dict[str, Any]:
    """The manifest of a stored resource, with its resourceVersion, what the compiler says of it, and the addresses that
    a Service of type LoadBalancer was given."""
    manifest = to_manifest(stored.resource)
    if status is not None:
        manifest["status"] = {"faults": list(status.faults)}
    if given is not None:
        manifest["status"] = _load_balancer(given)
    return {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": str(stored.sequence)}}


def _load_balancer(given: ServiceAddresses) -> dict[str, Any]:
    """core/v1 ServiceStatus."""
    status: dict[str, Any] = {"loadBalancer": {"ingress": [{"ip": ip} for ip in given.addresses]}}
    if given.reason:
        status["conditions"] = [{"type": "AddressesAssigned", "status": "False", "message": given.reason}]
    return status


@web.middleware
async def as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure that has a meaning, as an answer; a bug stays a bug (500, logged by the server)."""
    try:
        stranger = foreign(request)
        if stranger:
            raise Problem(HTTPStatus.FORBIDDEN, stranger)
        return await handler(request)
    except Problem as problem:
        return _error(problem.status, problem.error, problem.faults, problem.unknown)
    except Unavailable as error:
        return _error(HTTPStatus.SERVICE_UNAVAILABLE, f"the bus is away: {error}")
    except Conflict as error:
        return _error(HTTPStatus.CONFLICT, f"others keep changing the same objects: {error}")
    except BusRejected as error:
        return _error(HTTPStatus.INSUFFICIENT_STORAGE, f"the bus refused the write: {error}")
    except web.HTTPRequestEntityTooLarge:
        limit = request.app[BODY_LIMIT]
        return _error(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the body is larger than {limit} bytes: send less at once, or raise TORTIE_API_MAX_BODY_BYTES",
        )
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _error(error.status, f"{request.method} {request.path}: {error.reason.lower()}")


def decided(decision: Decision, documents: Iterable[Read], *, dry_run: bool = False) -> web.Response:
    if isinstance(decision, Refused):
        if decision.reason == "invalid":
            raise invalid(decision.error, decision.faults, documents)
        raise Problem(_STATUS_OF[decision.reason], decision.error)
    results = [
        {
            "object": "/".join(filter(None, (result.kind.KIND, *result.key))),
            "kind": result.kind.KIND,
            "apiVersion": result.kind.API_VERSION,
            "namespace": result.key[0],
            "name": result.key[1],
            "outcome": result.outcome,
            "warnings": list(result.warnings),
        }
        for result in decision.results
    ]
    return json({"results": results, "dryRun": dry_run}, "")


def invalid(error: str, faults: Iterable[Fault], documents: Iterable[Read]) -> Problem:
    displays = {each.document: _said_to_be(each) for each in documents}
    described = [
        {
            "document": fault.document,
            "object": displays.get(fault.document, ""),
            "path": fault.path,
            "reason": fault.reason,
            "line": fault.line,
        }
        for fault in faults
    ]
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, error, described)


def _said_to_be(document: Read) -> str:
    return document.display if isinstance(document, Rejected) else document.resource.display


def flag(request: web.Request, name: str) -> bool:
    """Whether a parameter of the query is true; absent is false."""
    value = request.query.get(name, "false").lower()
    if value not in ("true", "false", "1", "0", ""):
        raise Problem(HTTPStatus.BAD_REQUEST, f"{name} is true or false, not {value}")
    return value not in ("false", "0")


def encode(value: Any) -> bytes:
    return msgspec.json.encode(value)


def json(value: Any, stale: str, *, etag: int | None = None, status: int = 200) -> web.Response:
    response = web.Response(body=encode(value), content_type="application/json", status=status)
    if stale:
        response.headers["Tortie-Stale"] = " ".join(stale.split())
    if etag is not None:
        response.headers["ETag"] = f'"{etag}"'
    return response


def _error(status: int, error: str, faults: Sequence[dict[str, Any]] = (), unknown: str = "") -> web.Response:
    body = {"error": error, "faults": list(faults)} | ({"unknown": unknown} if unknown else {})
    return web.Response(body=encode(body), content_type="application/json", status=int(status))
