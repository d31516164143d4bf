"""From figures to report.html."""
