"""Development tools of nightorders. Nothing in here is part of the installed package."""
