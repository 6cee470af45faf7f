"""The decisions. Pure: no await, no clock, no log, no I/O; `now` is an argument."""
