"""Results as tables for people, one file a kind of result; the stable form is ``--json``."""
