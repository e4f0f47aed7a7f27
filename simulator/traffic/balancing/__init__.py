"""Which instance gets the next request: what a balancer knows, and the policies."""
