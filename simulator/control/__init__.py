"""Who changes the room while it runs: the autoscalers, the machine autoscaler, and the faults."""
