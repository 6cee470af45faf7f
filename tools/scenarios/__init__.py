"""Fault scenarios: loaded, proved, run against the real operator, and scored (`python -m tools.scenarios --help`)."""
