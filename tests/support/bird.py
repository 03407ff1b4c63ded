"""A stock BIRD in a namespace, as tests need it: started with a configuration, asked, configured anew, ended."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.support.netns import Namespace, wait_for

_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
BIRD = shutil.which("bird", path=_PATH)
BIRDC = shutil.which("birdc", path=_PATH)
DEADLINE_S = 20.0


class Bird:
    def __init__(self, namespace: Namespace, directory: Path, configuration: str) -> None:
        directory.mkdir()
        self._socket, self._path, self._log = directory / "ctl", directory / "bird.conf", directory / "log"
        self._path.write_text(configuration)
        assert BIRD is not None
        command = [BIRD, "-f", "-c", str(self._path), "-s", str(self._socket)]
        with self._log.open("w") as log:
            self._process = namespace.call(lambda: subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log))
        wait_for(self._answers, "BIRD answers", DEADLINE_S)

    def ask(self, question: str) -> str:
        assert BIRDC is not None
        done = subprocess.run(
            [BIRDC, "-s", str(self._socket), question], capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
        return done.stdout

    def configure(self, configuration: str) -> str:
        self._path.write_text(configuration)
        return self.ask("configure")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(DEADLINE_S)

    def _answers(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        return "ready" in self.ask("show status")
