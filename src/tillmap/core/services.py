"""What it takes to ask a service on the network: a key from the environment, and an address that can be one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from pydantic import Field

from tillmap.core.errors import ParamsError, first_line

KeyVariable = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]  # the name of an environment variable

_PORTS = 2**16
_SETTINGS = "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR"


def read_key(variable: str, otherwise: str) -> str:
    """The key in an environment variable. It is never shown. `otherwise` is what else can be done if there is none.

    Raises ParamsError if there is none, or if no header of HTTP can carry it: clients say that late and in their own
    ways, some with the key.
    """
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ParamsError(f"no key in the environment variable {variable}; export one, {otherwise}")
    if place := fault_of_key(key):
        raise ParamsError(
            f"the key in the environment variable {variable} has a line break or a letter that is not ASCII, at place "
            f"{place}; export it again"
        )
    return key


def fault_of_key(key: str) -> int:
    """The place, from 1, of the first sign of a key that no header of HTTP can carry; 0 if there is none."""
    return next((place for place, sign in enumerate(key, 1) if not " " <= sign <= "~"), 0)


@contextmanager
def connecting(url: str, param: str) -> Iterator[None]:
    """Raise ParamsError where a block makes a client of HTTP that could never work; nothing is sent.

    The cause is the address, which is in `param`, or a setting of proxies and certificates in the environment. An
    address may contain a password, so it is not shown, nor the part of it that a library quotes.
    """
    import httpx

    try:
        address = httpx.URL(url)
        if not address.host or (address.port or 0) >= _PORTS:
            raise ValueError("it has no host, or a port above 65535")
        address.host.encode("idna")  # as sockets do, where a part may have 63 letters
    except (httpx.InvalidURL, ValueError) as error:
        raise ParamsError(f"{param} is no address of HTTP ({_unquoted(error)}); correct it in params.yaml") from None
    try:
        yield
    except Exception as error:  # of openai, too, whose library of HTTP may be another, with errors of its own
        raise ParamsError(
            f"{param} cannot be asked: proxies or certificates are set that cannot be used ({_unquoted(error)}); "
            f"correct or unset these environment variables: {_SETTINGS}"
        ) from error


def _unquoted(error: Exception) -> str:
    return first_line(error).partition(": ")[0]
