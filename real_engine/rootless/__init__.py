"""The engine of an ordinary user: root of a user namespace, and of nothing else.

`session` is what `onggi engine serve` does when it isn't root: it asks the *keeper* of its data root for namespaces and
goes on in them. The keeper is a small process outside. It makes the user, mount and network namespace (`namespaces`),
gives them the user's ids (`identities`), connects them to the world (`uplink`), and opens ports and connections of the
machine for the daemon inside (`outside`). It stays for as long as a daemon or a supervisor needs that: a daemon that is
started again finds its containers in the namespaces in which it has left them.
"""
