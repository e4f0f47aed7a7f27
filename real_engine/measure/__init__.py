"""The experiments, and the tidy files that they leave."""
