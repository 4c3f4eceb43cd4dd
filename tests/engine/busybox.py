"""An image made from this machine's own busybox: no registry is asked."""

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

from agent.engine.transport import Transport, docker_host_of
from tests.packages import install_debian_package

__all__ = ["BUSYBOX_REPOSITORY", "import_image", "remove_image"]

#: Tests tag it with something of their own, so that they can remove it.
BUSYBOX_REPOSITORY = "homeport-test/busybox"


def _archive() -> bytes:
    """Return a root file system: /bin with busybox (statically linked) and a link for each applet."""
    install_debian_package("busybox", "busybox-static")
    busybox = shutil.which("busybox")
    assert busybox is not None
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for directory, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777)):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            archive.addfile(entry)
        content = Path(busybox).read_bytes()
        entry = tarfile.TarInfo("bin/busybox")
        entry.size, entry.mode = len(content), 0o755
        archive.addfile(entry, io.BytesIO(content))
        for applet in applets:
            if applet != "busybox":
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                archive.addfile(link)
    return packed.getvalue()


async def import_image(reference: str, docker_host: str | None = None) -> None:
    """Import the image under `REPOSITORY:TAG`."""
    repository, _, tag = reference.partition(":")
    async with Transport(docker_host_of(docker_host)) as transport:
        docker = transport.docker
        async with docker.session.post(
            f"{docker.docker_host}/images/create",
            params={"fromSrc": "-", "repo": repository, "tag": tag},
            data=io.BytesIO(_archive()),
            headers={"Content-Type": "application/x-tar"},
        ) as answer:
            assert answer.status == 200, await answer.text()
            await answer.read()


async def remove_image(reference: str, docker_host: str | None = None) -> None:
    """Remove the tag, and the image with its last tag."""
    async with Transport(docker_host_of(docker_host)) as transport:
        await transport.docker.images.delete(reference, force=True)
