"""Preflight's findings, put to NVIDIA's own parser and compiler."""
