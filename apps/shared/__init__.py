"""What both pages share: the frame around them, and messages to the visitor."""
