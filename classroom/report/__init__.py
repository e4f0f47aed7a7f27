"""The report that a comparison leaves: one HTML file that needs nothing else."""
