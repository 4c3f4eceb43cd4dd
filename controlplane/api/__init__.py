"""The AWS front door: JSON 1.1, SigV4, a table of operations, one module per ECS resource."""
