"""Claims of papers, one per file, found by being there. What several of them share is in ``shared``."""
