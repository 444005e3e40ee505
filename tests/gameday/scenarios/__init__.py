"""All scenarios; importing this registers them, in the order of the table."""

from . import workers, masters, resources, surroundings, upgrades  # noqa: F401  (in this order)
