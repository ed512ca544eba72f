"""What the paper published, and the networks of its tables."""
