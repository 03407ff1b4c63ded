"""What can go wrong on a node.

NodeError
  LinkError        a pod's link cannot be made as asked
  StoreError       the state directory cannot be read or written
  BirdError        BIRD cannot be started, or does not speak as it should
"""

from __future__ import annotations


class NodeError(Exception):
    """Base; the text is a sentence for a person."""


class LinkError(NodeError):
    pass


class StoreError(NodeError):
    pass


class BirdError(NodeError):
    pass
