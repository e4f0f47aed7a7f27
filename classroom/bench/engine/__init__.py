"""How fast the engine is, side by side with Docker's own daemon and with the runtimes beneath it."""
