"""The bundled datasets and their trained networks (data only)."""
