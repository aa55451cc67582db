"""Functions that run in worker processes: the only code that opens untrusted archives."""
