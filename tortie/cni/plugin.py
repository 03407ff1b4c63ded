#!/usr/bin/python3 -IS
"""The CNI plugin: hands its environment and standard input to the node's agent, and prints the answer.

It decides nothing. One file, started anew by the container runtime for every call, so it imports only modules that are
compiled into the interpreter (`socket` and `json` would triple its running time) and runs without site-packages:
`python3 -I -S plugin.py`. `tortie cni install` writes it down compiled, too. The protocol is that of
services/node_dataplane/cni_server.py.

The agent's socket is the key "socket" of the network configuration, /run/tortie/cni.sock without it.
"""

import posix

SOCKET = "/run/tortie/cni.sock"
VERSIONS = '["0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]'
PATIENCE_S = 90.0
"""Longer than the agent's own deadline, which names its reason."""
TRY_AGAIN = 11
_ESCAPES = {number: f"\\u{number:04x}" for number in range(32)} | {ord('"'): '\\"', ord("\\"): "\\\\"}


def quote(text: str) -> str:
    return '"' + text.translate(_ESCAPES) + '"'


def field(configuration: str, name: str, default: str) -> str:
    """A string of the configuration's top level. Its text is scanned; parsed only when the name occurs twice."""
    mark = f'"{name}"'
    count = configuration.count(mark)
    if count == 0:
        return default
    if count > 1:
        import json

        try:
            value = json.loads(configuration).get(name, default)
        except (ValueError, AttributeError):
            return default
        return value if isinstance(value, str) else default
    rest = configuration[configuration.index(mark) + len(mark) :].lstrip()
    if not rest.startswith(":"):
        return default
    rest = rest[1:].lstrip()
    try:
        return unquote(rest) if rest.startswith('"') else default
    except ValueError:  # what is wrong with the configuration the agent says
        return default


def unquote(text: str) -> str:
    """The JSON string at the start of `text`. Raises ValueError."""
    from _json import scanstring  # CPython's own scanner; `json` would import it, too, after much else

    try:
        return str(scanstring(text, 1)[0])
    except SystemError as error:  # it finds no class for its error, as `json` was not imported
        raise ValueError("not a JSON string") from error


def read(descriptor: int) -> bytes:
    parts = []
    while part := posix.read(descriptor, 1 << 16):
        parts.append(part)
    return b"".join(parts)


def write(text: str) -> None:
    data = text.encode("utf-8", "replace")
    while data:
        data = data[posix.write(1, data) :]


def failure(configuration: str, code: int, message: str, details: str = "") -> int:
    version = quote(field(configuration, "cniVersion", "1.0.0"))
    extra = f',"details":{quote(details)}' if details else ""
    write(f'{{"cniVersion":{version},"code":{code},"msg":{quote(message)}{extra}}}\n')
    return 1


def ask(path: str, request: bytes) -> str:
    """The agent's whole answer; empty when it ended without one. Raises OSError."""
    import _socket

    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.settimeout(PATIENCE_S)
        connection.connect(path)
        connection.sendall(request)
        connection.shutdown(_socket.SHUT_WR)
        parts = []
        while part := connection.recv(1 << 16):
            parts.append(part)
        return b"".join(parts).decode()
    finally:
        connection.close()


def main() -> int:
    environment = {
        name.decode("utf-8", "replace"): value.decode("utf-8", "replace")
        for name, value in posix.environ.items()
        if name.startswith(b"CNI_")
    }
    configuration = read(0).decode("utf-8", "replace")
    command = environment.get("CNI_COMMAND", "")
    if command == "VERSION":
        version = quote(field(configuration, "cniVersion", "1.1.0"))
        write(f'{{"cniVersion":{version},"supportedVersions":{VERSIONS}}}\n')
        return 0
    if not command:
        return failure(configuration, 4, "CNI_COMMAND is not set: this is a CNI plugin, run by a container runtime")
    path = field(configuration, "socket", SOCKET)
    pairs = ",".join(f"{quote(name)}:{quote(value)}" for name, value in environment.items())
    request = f'{{"env":{{{pairs}}},"stdin":{quote(configuration)}}}'
    try:
        answer = ask(path, request.encode("utf-8", "replace"))
    except TimeoutError:
        return failure(configuration, TRY_AGAIN, f"the tortie agent at {path} did not answer in {PATIENCE_S:g} s")
    except OSError as error:
        message = f"the tortie agent does not listen on {path}: is it running on this node?"
        return failure(configuration, TRY_AGAIN, message, error.strerror or "")
    try:
        if not answer.startswith('{"exit":'):
            raise ValueError(answer)
        code = int(answer[len('{"exit":') : answer.index(",")])
        output = unquote(answer[answer.index('"stdout":') + len('"stdout":') :])
    except ValueError:
        return failure(configuration, TRY_AGAIN, "the tortie agent ended before it answered; it is safe to try again")
    if output:
        write(output + "\n")
    return code


if __name__ == "__main__":
    posix._exit(main())  # Nothing is buffered, and the interpreter's own leave-taking costs a millisecond or two.
