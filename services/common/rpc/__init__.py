"""gRPC between the services and for operators: server, who may call what, client, errors."""

import os

# The core library writes its own lines, not ours, to stderr for everything that goes wrong with a
# connection; each of those reaches us as an error that we log. Set before grpc is first imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
