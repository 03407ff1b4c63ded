"""What a container runtime runs: the plugin, and how it gets to where the runtime looks for it."""
