"""What the running kernel has; tests of what it lacks are run in a virtual machine by `make test-vm`, where nothing is
skipped: what that kernel lacks makes a test fail."""

from __future__ import annotations

import os
import subprocess
from functools import cache

import pytest

from tests.support.netns import namespaces
from tortie.lab import vm


@cache
def has(kind: str) -> bool:
    """Whether devices of the kind can be made, or have to be."""
    if vm.SHARED in os.environ:
        return True
    if os.geteuid() != 0:
        return False
    with namespaces(1) as (space,), space.inside():
        made = subprocess.run(("ip", "link", "add", "probe0", "type", kind), capture_output=True, check=False)
        fallback = subprocess.run(("ip", "link", "show", "tunl0"), capture_output=True, check=False)
    return made.returncode == 0 or (kind == "ipip" and fallback.returncode == 0)


def needs(*kinds: str) -> pytest.MarkDecorator:
    missing = [kind for kind in kinds if not has(kind)]
    return pytest.mark.skipif(bool(missing), reason=f"this kernel has no {', '.join(missing)}: make test-vm")
