"""How patient the lab is: what answers within a moment on a machine takes many where its processor is emulated."""

from __future__ import annotations

import os

SLOWNESS = float(os.environ.get("TORTIE_LAB_SLOWNESS") or 1)
"""Every deadline is so many times longer. `vm` sets it for what it runs."""
