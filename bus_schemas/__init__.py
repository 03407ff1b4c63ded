"""What is said: every message, key and resource of Tortie, and nothing that does anything.

Pure data and pure functions; imports msgspec, PyYAML (in `manifests`) and the standard library only. Start at
`subjects`, the map of the system.
"""

VERSION = "0.1.0"
"""Of the whole project. The package's metadata is made of it (pyproject.toml)."""
