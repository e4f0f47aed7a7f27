"""The face that knows both rooms: the `onggi` command, reports and lessons. Nothing imports it."""
