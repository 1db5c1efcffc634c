"""`dexml serve`: models over HTTP, and a page to try them on.

The event loop answers requests and never computes: one thread does (`worker`), for a model (`served`) at a time. What
the network may send is bounded before it is looked at (`limits`, `protocol`).
"""
