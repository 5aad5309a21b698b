"""The subcommands of ``toyguide``, one per file, found by being there. See ``toyguide.cli`` for what one must have."""
