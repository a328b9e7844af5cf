"""What runs inside the peer's own environment, never in ours."""
