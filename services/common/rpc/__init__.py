"""gRPC between the services and for operators: server, who may call what, client, errors."""

import os

# The core library writes its own lines, not ours, to stderr for everything that goes wrong with a
# connection; each of those reaches us as an error that we log. Set before grpc is first imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

# With its own event engine the core library hands each message to a further thread. The poller that
# it had before does without: a message over a stream costs each side a sixth less.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
