"""What the studies of several claims share: networks, points and fields."""
