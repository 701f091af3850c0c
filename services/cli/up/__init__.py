"""`gatepost up`: everything on this machine, for trying out and for developing."""
