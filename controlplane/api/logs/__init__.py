"""The CloudWatch Logs API, one module per resource."""
