"""Reading a stream of log lines to its end; one that is followed also over restarts of the control plane."""

from typing import TYPE_CHECKING, Any, Final

from homeport.cli.absence import Absence, is_absence
from homeport.cli.errors import CliError

if TYPE_CHECKING:
    from homeport.cli.client import Client
    from homeport.cli.loglines import Printer

__all__ = ["stream_logs"]

_PATH: Final = "/homeport/v1/logs"


def stream_logs(client: "Client", query: dict[str, str], printer: "Printer", *, follow: bool = False) -> None:
    """Print the log that `query` asks for until it ends. Raises CliError if it breaks off.

    A control plane that goes away while its log is followed is waited for, once it has answered: the log then goes on
    where it was, without loss or repetition.
    """
    reader = _Reader(client, query, printer, follow=follow)
    absence = Absence()
    while True:
        try:
            reader.read()
            return
        except CliError as error:
            if not (reader.standing and is_absence(error)):
                raise
        absence.wait(anew=reader.moved)


class _Reader:
    """What has been read so far. `standing`: what to send to go on; {} if that isn't possible."""

    def __init__(self, client: "Client", query: dict[str, str], printer: "Printer", *, follow: bool) -> None:
        self._client = client
        self._query = {**query, "resumable": "true"} if follow else query
        self._printer = printer
        self._follow = follow
        self.standing: dict[str, Any] = {}
        self._marks: dict[tuple[str, str], list[Any]] = {}
        #: Whether the present attempt has got an answer.
        self.moved = False

    def read(self) -> None:
        """Read on, to the end. Raises CliError, CannotConnect if the control plane goes away."""
        self.moved = False
        resume = {**self.standing, "marks": list(self._marks.values())} if self.standing else None
        for document in self._client.lines(_PATH, self._query, follow=self._follow, document=resume):
            self.moved = True
            if "text" in document:
                self._marks[document["task"], document["container"]] = [
                    document["task"],
                    document["container"],
                    document["at"],
                    document.get("number", 0),
                ]
                self._printer.line(document)
            elif "marks" in document:
                self.standing = document
                self._marks = {(mark[0], mark[1]): mark for mark in document["marks"]}
            elif "note" in document:
                self._printer.note(document["note"])
            elif "error" in document:
                raise CliError(f"The log broke off: {document['error']}.")
