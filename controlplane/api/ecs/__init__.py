"""The ECS operations, one module per resource; importing this package fills the handler table."""
