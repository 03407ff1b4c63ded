"""Waits for a pod's detached command and notes how it ended: `python -I -S shim.py FILE -- COMMAND...`.

Started inside the pod, with the command's privileges; outlives the one who started it. Standard library only, and as
little of it as can be, because one runs for each pod.
"""

import os
import signal
import sys

CANNOT_RUN, NOT_FOUND = 126, 127
"""Exit codes, as shells have them."""


def main() -> None:
    path, command = sys.argv[1], sys.argv[3:]
    passed_on = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    for number in passed_on:
        signal.signal(number, signal.SIG_IGN)  # they are for the command, whose end is waited for
    child = os.fork()
    if child == 0:
        for number in passed_on:
            signal.signal(number, signal.SIG_DFL)
        try:
            os.execvp(command[0], command)
        except OSError as error:
            os.write(2, f"tortie: cannot run {command[0]}: {error.strerror}\n".encode())
            os._exit(NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_RUN)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    with open(path + ".new", "w") as file:
        file.write(str(code if code >= 0 else 128 - code))
    os.rename(path + ".new", path)


if __name__ == "__main__":
    main()
