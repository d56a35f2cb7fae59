"""An engine runs: bindings are fed and read, the runner that comparisons and benches use."""
