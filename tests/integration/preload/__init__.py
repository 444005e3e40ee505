"""Programs that are preloaded, in each language: they say what they see, and wait for their end."""
