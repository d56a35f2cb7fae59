"""Latency with its uncertainty: what was timed, how sure it is, on what machine."""
