"""The calls of the API, a module for each part of it. Each has `register(router, daemon)`."""
