"""To see through the engine: what a request makes it do, what the kernel shows of a container, what was said.

`recorder` is in the daemon: whoever looks gets each step of his own requests, and nobody pays when nobody looks.
`session` is the one form of what was seen, as lines of JSON, and `replay` shows it where there is no Linux. `dialogue`
takes the exchange between a client and a daemon apart, `proxy` stands between the two, and `client` asks a daemon what
it does. `kernel` reads what /proc, /sys and netlink tell of a container and of the host.
"""
