"""`make gpu`: the tests marked `gpu` and `bench gpu` on a machine that has torch, a card and little else.

What leaves: one summary, as text and as JSON. The packages that such a machine lacks are brought as wheels, which
`make gpu-pack` lays into `.wheels/` where there is a network. Nothing here imports what is not in Python itself.
"""
