"""Studies: sweeps over the settings of a conversion, and the yield of virtual analog chips.

A spec (`spec.py`) becomes trials by a grid or a search (`run.py`). A trial with the hash of its
inputs (`plan.py`) is a job. Workers (`workers.py`) run jobs (`trial.py`) and write the record of
each when it ends (`records.py`), which also has the table and the Pareto front. `quantization.py`
quantizes with the data of a task, and `chip_yield.py` runs a network on many virtual chips.
"""
