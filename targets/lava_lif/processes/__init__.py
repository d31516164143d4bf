"""Lava processes and their models, and nothing else.

To find the model of a process, Lava executes every file in the folder where the process is
defined, so no file that does something when it is executed may stand here.
"""

from targets.lava.compat import import_lava

import_lava()
