"""Images between machines: a registry of the OCI distribution specification, and the client that pulls and pushes."""
