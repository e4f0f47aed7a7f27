"""What stands in the room: platforms, machines, instances, and what they consume."""
