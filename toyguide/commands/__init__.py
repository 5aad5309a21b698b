"""The subcommands of ``toyguide``, one per file, discovered by listing this folder; ``toyguide.cli`` describes them."""
