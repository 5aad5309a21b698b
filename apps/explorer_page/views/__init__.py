"""Views: each owns one part of the page, is told what to show, and computes nothing."""
