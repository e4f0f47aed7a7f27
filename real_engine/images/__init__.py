"""What a container starts from."""
