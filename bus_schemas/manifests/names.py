"""Names, labels and annotations, as RFC 1123 and Kubernetes' own validation have them."""

from __future__ import annotations

import re

from bus_schemas.manifests.fields import At, said

_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
DNS_LABEL = re.compile(_LABEL)
DNS_SUBDOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_QUALIFIED = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?")

MAX_NAME = 253
MAX_LABEL = 63
MAX_ANNOTATIONS = 256 * 1024
"""Bytes of all keys and values of the annotations together."""


def dns_label(at: At) -> str:
    name = at.string()
    if name and (len(name) > MAX_LABEL or not DNS_LABEL.fullmatch(name)):
        at.fault(f"must be lower-case letters, digits and '-', at most {MAX_LABEL} (RFC 1123), not {said(name)}")
    return _required(at, name)


def dns_subdomain(at: At) -> str:
    name = at.string()
    if name and (len(name) > MAX_NAME or not DNS_SUBDOMAIN.fullmatch(name)):
        at.fault(f"must be lower-case letters, digits, '-' and '.', at most {MAX_NAME} (RFC 1123), not {said(name)}")
    return _required(at, name)


def _required(at: At, text: str) -> str:
    if at.value == "":
        at.fault("must not be empty")
    return text


def label_key(at: At, key: str, *, any_case: bool = False) -> str:
    """A qualified name: `[prefix/]name`."""
    prefix, slash, name = key.rpartition("/")
    domain = prefix.lower() if any_case else prefix
    if slash and not (domain and len(domain) <= MAX_NAME and DNS_SUBDOMAIN.fullmatch(domain)):
        at.fault(f"the key {said(key)} must have a DNS name before the '/'")
    elif not (len(name) <= MAX_LABEL and _QUALIFIED.fullmatch(name)):
        at.fault(f"the key {said(key)} must be letters, digits, '-', '_' and '.', at most {MAX_LABEL}")
    return key


def label_value(at: At, value: str) -> str:
    if len(value) > MAX_LABEL or not _LABEL_VALUE.fullmatch(value):
        at.fault(f"must be letters, digits, '-', '_' and '.', at most {MAX_LABEL}, not {said(value)}")
    return value


def label_map(at: At) -> dict[str, str]:
    return {label_key(place, key): label_value(place, value) for place, key, value in at.string_map()}


def annotation_map(at: At) -> dict[str, str]:
    found = {label_key(place, key, any_case=True): value for place, key, value in at.string_map()}
    if sum(len(key.encode()) + len(value.encode()) for key, value in found.items()) > MAX_ANNOTATIONS:
        at.fault(f"must not be more than {MAX_ANNOTATIONS} bytes together")
    return found
