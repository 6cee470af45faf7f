"""From a snapshot to an answer: what is known, what is guessed, the likeliest origin. Pure, like `domain`: no await, clock, log, I/O."""
