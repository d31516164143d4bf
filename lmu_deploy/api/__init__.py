"""What the command line does, one Python call a file; each is importable from `lmu_deploy`."""
