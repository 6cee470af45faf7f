"""Gather → decide → act → save: the loop around the pure decisions of `domain`, through `ports`."""
