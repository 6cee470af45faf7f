"""kopf: turns events of our own kinds into keys of the queues. The only place that imports kopf."""
