"""An example plugin of lmu-deploy: a target and an importer for an invented chip."""
