"""Settings come from the environment, into one frozen Struct a service, all errors at once.

`TORTIE_<FIELD>` sets a field. A variable with our prefix that no service knows is refused (a misspelt setting that
silently does nothing is an outage waiting), one that another service knows is left to it: the variables of a
compose file are often shared. So are those that Kubernetes adds for every Service of a pod's namespace: a Service
`tortie-x` becomes `TORTIE_X_SERVICE_HOST`, `TORTIE_X_PORT` and more (Kubernetes, "Accessing the Service: environment
variables"). The text under each field is its documentation, here and in `tortie serve --help`.
"""

from __future__ import annotations

import importlib.util
import os
import pkgutil
import re
import socket
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec

from bus_schemas.field_docs import field_docs
from chassis.errors import SettingsError

PREFIX = "TORTIE_"

OUTSIDE = frozenset(
    {
        "TORTIE_API",
        "TORTIE_CONFORMANCE",
        "TORTIE_KUBECONFIG",
        "TORTIE_KUBECTL",
        "TORTIE_LAB",
        "TORTIE_NAMESPACE",
        "TORTIE_TEST_KUBECTL",
    }
)
"""Variables with our prefix that are not a service's setting: the command line's and the tests'."""


class ServiceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What every service can be told."""

    nats_url: str = "nats://127.0.0.1:4222"
    """Where the bus is: one URL, or several of one cluster separated by commas."""
    nats_credentials: str = ""
    """A file with NATS credentials (JWT and nkey seed); empty: none."""
    nats_replicas: int = 1
    """How many servers keep each stream (1, 3 or 5); used when a stream is made."""
    instance: str = msgspec.field(default_factory=socket.gethostname)
    """The name of this replica: unique among the replicas of a service, the same after a restart."""
    health_listen: str = "127.0.0.1:0"
    """Where /livez, /readyz and /metrics are: `host:port`, `unix:/path`, or empty for nowhere."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """`auto`: for people on a terminal, JSON lines elsewhere."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important lines that are written."""

    def __post_init__(self) -> None:
        faults = []
        servers = [server.strip() for server in self.nats_url.split(",") if server.strip()]
        if not servers or not all(map(_is_server, servers)):
            faults.append("TORTIE_NATS_URL: must be nats://host:port or tls://host:port, or several with commas")
        if self.nats_replicas not in (1, 3, 5):
            faults.append(f"TORTIE_NATS_REPLICAS: must be 1, 3 or 5, not {self.nats_replicas}")
        if faults:
            raise SettingsError(faults)


S = TypeVar("S", bound=ServiceSettings)


class Setting(NamedTuple):
    """One setting, for help texts and the reference page."""

    variable: str
    default: str
    doc: str


def _is_server(url: str) -> bool:
    try:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        # a `$(VARIABLE)` that Kubernetes did not know stays as it is
        named = bool(parts.hostname) and "$" not in (parts.hostname or "")
        return parts.scheme in ("nats", "tls", "ws", "wss") and named and parts.port != 0
    except ValueError:
        return False


_LINK = re.compile(r"(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?)?)")


def _service_links(environ: Mapping[str, str]) -> frozenset[str]:
    """What Kubernetes says of Services whose names begin as our variables do."""
    services = tuple(name.removesuffix("SERVICE_HOST") for name in environ if name.endswith("_SERVICE_HOST"))
    return frozenset(
        name
        for name in environ
        for service in services
        if name.startswith(service) and _LINK.fullmatch(name.removeprefix(service))
    )


def load(type_: type[S], environ: Mapping[str, str], *, known: frozenset[str] = frozenset()) -> S:
    """The settings in an environment. `known` are variables of other services. Raises SettingsError."""
    fields = {PREFIX + field.name.upper(): field for field in msgspec.structs.fields(type_)}
    faults: list[str] = []
    values: dict[str, Any] = {}
    known |= _service_links(environ)
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX):
            continue
        field = fields.get(variable)
        if field is None:
            if variable not in known | OUTSIDE:
                near = get_close_matches(variable, fields, n=1)
                faults.append(f"{variable} is not a setting" + (f"; did you mean {near[0]}?" if near else ""))
            continue
        try:
            values[field.name] = msgspec.convert(text.strip(), field.type, strict=False)
        except msgspec.ValidationError as error:
            faults.append(f"{variable}: {error}")
    if faults:
        raise SettingsError(faults)
    try:
        return type_(**values)
    except SettingsError:
        raise
    except (ValueError, TypeError) as error:  # a required field is missing, or the Struct's own check
        raise SettingsError([str(error)]) from error


def from_environment(type_: type[S]) -> S:
    return load(type_, os.environ, known=every_variable())


def variables(type_: type[ServiceSettings]) -> frozenset[str]:
    return frozenset(PREFIX + field.name.upper() for field in msgspec.structs.fields(type_))


def every_variable() -> frozenset[str]:
    """The variables of every service that is installed.

    Found by name at run time, and only to tell a neighbour's variable from a mistyped one: the chassis may not import
    services.
    """
    services = importlib.util.find_spec("services")
    for found in pkgutil.iter_modules((services.submodule_search_locations or []) if services is not None else []):
        if found.ispkg and importlib.util.find_spec(f"services.{found.name}.settings") is not None:
            importlib.import_module(f"services.{found.name}.settings")
    pending = [ServiceSettings]
    names: set[str] = set()
    while pending:
        type_ = pending.pop()
        names |= variables(type_)
        pending.extend(type_.__subclasses__())
    return frozenset(names)


def describe(type_: type[ServiceSettings]) -> list[Setting]:
    """Every setting of a service with its default and its text, its own before the common ones."""
    own = [base for base in type_.__mro__ if issubclass(base, ServiceSettings)]
    docs: dict[str, str] = {}
    order: list[str] = []
    for base in own:
        for name, doc in field_docs(base).items():
            if name not in docs:
                docs[name] = doc
                order.append(name)
    by_name = {field.name: field for field in msgspec.structs.fields(type_)}
    return [Setting(PREFIX + name.upper(), _default(by_name[name]), docs[name]) for name in order]


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.default is not msgspec.NODEFAULT:
        return str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
    return "the host name" if field.name == "instance" else ""
