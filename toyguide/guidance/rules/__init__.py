"""The guidance rules, one per file; the registry finds them by listing this folder."""
