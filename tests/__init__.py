"""Tests; a package so that ``tests.models:resnet18`` is an import path from the repository root."""
