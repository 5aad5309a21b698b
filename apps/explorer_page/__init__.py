"""The explorer: settings (state) become a picture (compute, layers), which the views draw; one session per visitor."""
