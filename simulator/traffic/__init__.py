"""What flows through the room: arrivals, service demands, balancing, and every single request."""
