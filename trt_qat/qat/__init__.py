"""Everything that needs torch and ModelOpt, one verb a file."""
