"""The web apps. Each top-level file is an entry for `panel serve`."""
