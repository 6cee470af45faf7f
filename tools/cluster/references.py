"""Simulated kubelets' handling of ConfigMap and Secret references (placeholder until the real one is committed)."""

import time

while True:
    time.sleep(3600)
