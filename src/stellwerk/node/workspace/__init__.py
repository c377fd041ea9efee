"""A workspace: folders with Workers, loaded and watched by `stellwerk dev`."""
