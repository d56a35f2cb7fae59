"""Whether a run is as good as its baseline."""
