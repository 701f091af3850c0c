"""The ingress: SMTP sessions with the world, from the connection to the stored mail."""
