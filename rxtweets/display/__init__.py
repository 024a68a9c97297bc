"""How figures and batches look; pure functions of snapshots."""
