"""The embedded server, asked over its socket by real clients."""
