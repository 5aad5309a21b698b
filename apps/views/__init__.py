"""Views: each owns one pane, is told what to show, and computes nothing."""
