"""The `gatepost` command: runs the services, and talks to running ones over gRPC."""
