"""Pure and fast: decisions, tables, properties."""
