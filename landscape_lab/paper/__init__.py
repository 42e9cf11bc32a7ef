"""The tables and figures of the GKP+GSA paper: what to run for them, the queue of runs, and what comes of it.

``published.json`` holds the paper's numbers, ``experiments`` says which recipes a table or figure needs, ``queue``
trains them within a budget, ``tables`` and ``pictures`` set ours beside the paper's, ``report`` writes them down.
"""

__all__: list[str] = []
