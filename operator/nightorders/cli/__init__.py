"""The human side of the `nightorders` command: what people type on their own machine, with their own credentials."""
