"""Lava processes and their models.

To find the model of a process, Lava executes every file in the folder of the process, so this
folder must not contain files with side effects.
"""

from targets.lava.compat import import_lava

import_lava()
