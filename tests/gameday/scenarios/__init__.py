"""All scenarios; importing this registers them, in the order of the table."""

from . import workers, masters, intercepting, preloading, resources, surroundings, upgrades, output, beside, honest  # noqa: F401  (in this order)
