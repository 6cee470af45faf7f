"""Night orders without a cluster: files in, problems, test results or differences out. What decides is `domain/`, the same as at night."""
