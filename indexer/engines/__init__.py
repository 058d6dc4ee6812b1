"""What parses, embeds and writes: on this machine, or on many."""
