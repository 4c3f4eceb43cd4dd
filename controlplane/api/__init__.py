"""The AWS front door: JSON 1.1, SigV4, a table of operations, one module per ECS resource."""

__all__ = ["load_handlers"]


def load_handlers() -> None:
    """Fill the table of operations and check it against the models; RuntimeError if an operation isn't in its model.

    `FrontDoor` does so itself. Imported late, so that a module below doesn't pull in all the others.
    """
    from controlplane.api import services

    services.load_handlers(services.load_services())
