"""What can go wrong with a pod.

PodError
├── NameTaken      there is such a pod already
├── NoSuchPod      nothing of that name runs here
├── PluginFailed   the CNI plugin answered with an error: the text is its own
└── CannotRun      the command, or its namespace, cannot be
"""

from __future__ import annotations


class PodError(Exception):
    """Base; the text is one or two sentences for a person."""


class NameTaken(PodError):
    pass


class NoSuchPod(PodError):
    pass


class PluginFailed(PodError):
    pass


class CannotRun(PodError):
    pass
