"""What an engine, its layer information and its build log prove."""
