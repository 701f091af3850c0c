"""The queue's vocabulary, shared by ingress (which publishes) and delivery (which consumes)."""
