"""The studies: their results, and one run at a time on the server."""
