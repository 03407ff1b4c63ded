"""What is said: every message, key and resource of Tortie, and nothing that does anything.

Pure data and pure functions; imports msgspec, PyYAML (in `manifests`) and the standard library only. Start at
`subjects`, the map of the system.
"""
