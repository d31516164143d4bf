"""Print the JSON schema of fidelity.json: python -m lmu_deploy.fidelity > fidelity.schema.json."""

import json

from lmu_deploy.fidelity.schema import json_schema

print(json.dumps(json_schema(), indent=1, sort_keys=True))
