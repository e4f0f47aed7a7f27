"""One module a command of `onggi`, imported only when it is the one asked for."""
