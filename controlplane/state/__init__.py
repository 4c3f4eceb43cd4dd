"""What the control plane knows: records in memory, tables with the few indexes that are needed, under one revision."""
