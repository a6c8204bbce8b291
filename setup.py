"""All metadata is in setup.cfg. What is here gives one commit the same bytes wherever it is built.

setuptools takes over the times, modes and owners of the files, and the umask; with the environment
variable SOURCE_DATE_EPOCH, in seconds, none of them counts.
"""

import gzip
import os
import tarfile
import time
from pathlib import Path

from setuptools import setup
from setuptools.command.sdist import sdist

BUILT = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))


def without_traces(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """A member of the archive without what the machine has put there."""
    executable = member.isdir() or member.mode & 0o100
    return member.replace(
        mtime=BUILT,
        mode=0o755 if executable else 0o644,
        uid=0,
        gid=0,
        uname="",
        gname="",
        deep=False,
    )


class SourceDistribution(sdist):
    def make_archive(self, base_name, format, root_dir=None, base_dir=None, owner=None, group=None):
        if format != "gztar":
            return super().make_archive(base_name, format, root_dir, base_dir, owner, group)
        path = Path(f"{base_name}.tar.gz")
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            path.open("wb") as file,
            gzip.GzipFile("", "wb", fileobj=file, mtime=BUILT) as packed,
            tarfile.open(mode="w", fileobj=packed) as archive,
        ):
            archive.add(base_dir, filter=without_traces)  # in the order of the names
        return str(path)


os.umask(0o022)  # the modes of the files that setuptools writes into the wheel
setup(cmdclass={"sdist": SourceDistribution})
