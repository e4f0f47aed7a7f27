"""How fast the simulator is, side by side with its peers, in one run on one machine.

`cases` says what is run and `engines` how. `one_run` measures one run in a process of its own, `rounds` takes them in
turns, and `figures` makes medians, ratios and warnings of the samples. `pages` shows them.
"""
