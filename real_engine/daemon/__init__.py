"""The daemon: Docker's Engine API on onggi's own engine. `app` owns the services, `routes` are the calls."""
