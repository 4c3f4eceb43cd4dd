"""`homeport up --sample`: a small web container to play with, and what to try next."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from homeport.cli.installation import Installation
    from homeport.cli.settings import UpSettings

__all__ = ["show_sample"]


async def show_sample(settings: "UpSettings", installation: "Installation") -> None:
    """Run the sample task unless it runs, and print what to try."""
