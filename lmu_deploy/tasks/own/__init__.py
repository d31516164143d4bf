"""Data of users: arrays, answers, choices of samples, and checks before work begins."""
