"""`make demo`: a broken release on a throw-away cluster, once per level of autonomy, counted in the API server's audit log."""
