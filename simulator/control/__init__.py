"""Who changes the room while it runs: the autoscalers."""
