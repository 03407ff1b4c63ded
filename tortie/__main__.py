"""`python -m tortie` is the `tortie` command."""

from __future__ import annotations

import sys

from tortie.cli.main import main

sys.exit(main())
