"""The Dockerfile builder: reads the instructions, runs the steps whose result isn't known yet, commits their layers."""
