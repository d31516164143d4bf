"""Many trials of one chain: every setting that may vary, run side by side, kept, and compared.

A spec (`spec.py`) becomes trials by a grid (`grid.py`) or a search (`search.py`). A trial with the
hash of its inputs (`plan.py`) is a job; workers (`workers.py`) run jobs (`trial.py`) and keep each
one's record the moment it ends (`records.py`). `table.py` and `pareto.py` show them all.
"""
