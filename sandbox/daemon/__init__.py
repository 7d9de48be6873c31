"""Process life, configuration, sockets and the HTTP API."""
