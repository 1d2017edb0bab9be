"""From a recipe in TOML to a run directory with networks, masks, measures and a report."""
