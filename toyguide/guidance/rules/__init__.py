"""The guidance rules, one per file, found by being there."""
