"""The HTTP API over the unix socket: one file a group of handlers (docs/api.md)."""
