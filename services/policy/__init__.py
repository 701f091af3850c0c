"""The policy service: verdicts on mail, with their evidence, and the account directory."""
