"""Where a BGP password is: a key of a Secret."""

from __future__ import annotations

import re

from bus_schemas.manifests.fields import At, Fields, Unknown, said
from bus_schemas.manifests.names import dns_subdomain
from bus_schemas.resources.bgp import BGPPassword, SecretKeyRef

SECRET_KEY = re.compile(r"[A-Za-z0-9_.-]{1,253}")


def password(at: At) -> BGPPassword | None:
    fields = at.fields()
    reference = fields.maybe("secretKeyRef", lambda ref: _reference(ref.fields()))
    fields.close(Unknown.REFUSED)
    return None if reference is None else BGPPassword(secret_key_ref=reference)


def _reference(fields: Fields) -> SecretKeyRef:
    read = SecretKeyRef(
        name=fields.required("name", dns_subdomain, ""),
        key=fields.required("key", _key, ""),
    )
    fields.known("optional")
    fields.close(Unknown.REFUSED)
    return read


def _key(at: At) -> str:
    """The agent reads it as the name of a file."""
    text = at.string()
    if not SECRET_KEY.fullmatch(text) or text in (".", ".."):
        at.fault(f"must be a key of a Secret (letters, digits, '-', '_' and '.'), not {said(text)}")
    return text
