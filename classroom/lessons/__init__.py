"""How the lessons are built from their sources, in both languages."""
