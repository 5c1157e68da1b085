"""Which addresses may be connected to: nothing that a dump says reaches into a private network."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import h11
import httpx

from pathclip.curate.fetch_policy import may_pass, unreachable

# Host and port to IP addresses; raises OSError where there are none.
Resolve = Callable[[str, int], Sequence[str]]
Origin = tuple[str, str, int]  # scheme, host, port

_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052
# What `ipaddress` calls global in some or all versions of Python, and is not reached from outside: protocol
# assignments, anycast of 6to4, documentation, and the host agent of a cloud.
_INSIDE = tuple(map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20", "168.63.129.16/32")))
_ADDRESSES_TRIED = 4
_RESOLVER_THREADS = 16
_KEEP_SECONDS = 5.0  # shorter than servers usually keep an idle connection
_READ_BYTES = 64 * 1024
_MOST_HEADER_BYTES = 64 * 1024


def literal_address(host: str) -> str | None:
    """The address, if a host is one in any notation that resolvers take: '::1', '127.1', '0x7f000001'."""
    try:
        return str(ip_address(host.strip("[]")))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except (OSError, UnicodeError):
        return None


def is_public(address: str) -> bool:
    """Whether an address belongs to the public internet.

    False for private, shared, loopback, link-local, multicast, reserved and unspecified ones (the IANA
    registries of special-purpose addresses, as Python's `ipaddress` has them). An IPv6 address that carries
    an IPv4 one (mapped, 6to4, NAT64) is judged by that.
    """
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64:
            inner = IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip.is_site_local:
            return False
    if any(ip in network for network in _INSIDE if network.version == ip.version):
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def system_resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, in the order of the system's resolver (RFC 6724)."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Network:
    """Opens connections to public addresses only, and keeps some open for the next picture.

    The name is looked up here, every address is checked, and the connection goes to the very address that
    was checked. A name server that answers the next question otherwise (DNS rebinding) changes nothing, as
    there is no next question. TLS still verifies the name.

    Args:
        resolve: from host and port to addresses; called in threads.
        allow_private: do not check.
        timeout: seconds to connect, and seconds without a byte.
        idle: connections that are kept open at most.
    """

    def __init__(self, resolve: Resolve, allow_private: bool, timeout: float, idle: int):
        self._resolve = resolve
        self._allow_private = allow_private
        self._timeout = timeout
        self._most_idle = idle
        self._idle: deque[tuple[Origin, Connection, float]] = deque()
        self._threads = ThreadPoolExecutor(_RESOLVER_THREADS, "fetch-resolve")
        self._tls = httpx.create_ssl_context(trust_env=False)

    def close(self) -> None:
        """Closes what is idle; look-ups that nobody waits for are left to end by themselves."""
        for _, connection, _ in self._idle:
            connection.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def take(self, url: httpx.URL) -> Connection | None:
        """An open connection that waits for a request to the URL's server, if there is one."""
        now = asyncio.get_running_loop().time()
        found = None
        for _ in range(len(self._idle)):
            origin, connection, since = self._idle.popleft()
            if connection.is_over or now - since > _KEEP_SECONDS:
                connection.close()
            elif found is None and origin == _origin(url):
                found = connection
            else:
                self._idle.append((origin, connection, since))
        return found

    def give_back(self, url: httpx.URL, connection: Connection) -> None:
        """Keeps a connection for the next request if its answer was read to the end, else closes it."""
        if not connection.begin_anew():
            connection.close()
            return
        self._idle.append((_origin(url), connection, asyncio.get_running_loop().time()))
        if len(self._idle) > self._most_idle:
            self._idle.popleft()[1].close()

    async def connect(self, url: httpx.URL) -> Connection:
        """A new connection to the first address that answers.

        Raises:
            Failure: an address of the host is not public, or none answers.
        """
        host, (scheme, _, port) = url.raw_host.decode("ascii"), _origin(url)
        tls = self._tls if scheme == "https" else None
        failure = unreachable(f"no address for {host}")
        for address in (await self._addresses(host, port))[:_ADDRESSES_TRIED]:
            try:
                async with asyncio.timeout(self._timeout):
                    reader, writer = await asyncio.open_connection(
                        address, port, ssl=tls, server_hostname=host if tls else None
                    )
                return Connection(reader, writer, self._timeout)
            except TimeoutError:
                failure = may_pass(f"no connection within {self._timeout:g} s")
            except ssl.SSLCertVerificationError as error:
                failure = unreachable(f"certificate: {error.verify_message}")
            except OSError as error:
                failure = may_pass(f"no connection: {error.strerror or error}")
        raise failure

    async def _addresses(self, host: str, port: int) -> list[str]:
        literal = literal_address(host)
        addresses = [literal] if literal else await self._look_up(host, port)
        for address in addresses:
            if not (self._allow_private or is_public(address)):
                raise unreachable(f"{host} is refused: {address} is not a public address")
        return addresses

    async def _look_up(self, host: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout):
                return list(await loop.run_in_executor(self._threads, self._resolve, host, port))
        except TimeoutError:
            raise may_pass(f"no name server answered for {host}") from None
        except socket.gaierror as error:
            if error.errno == socket.EAI_AGAIN:
                raise may_pass(f"{host}: {error.strerror}") from None
            raise unreachable(f"no such host: {host}") from None
        except (OSError, UnicodeError) as error:
            raise unreachable(f"no such host: {host[:80]} ({error})") from None


class Connection:
    """HTTP/1.1 on one open connection: h11 knows the protocol, the streams are of asyncio."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timeout: float):
        self._reader = reader
        self._writer = writer
        self._timeout = timeout
        self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MOST_HEADER_BYTES)

    @property
    def is_over(self) -> bool:
        """Whether the server has closed it."""
        return self._reader.at_eof() or self._writer.is_closing()

    def close(self) -> None:
        """Closes it at once; what was not read is lost."""
        self._writer.transport.abort()

    def begin_anew(self) -> bool:
        """Makes it ready for another request; False if it cannot take one."""
        try:
            self._protocol.start_next_cycle()
        except h11.LocalProtocolError:
            return False
        return not self._protocol.trailing_data[0] and not self.is_over

    async def ask(self, target: bytes, headers: list[tuple[bytes, bytes]]) -> h11.Response:
        """Sends a GET and reads the head of the answer.

        Raises:
            Failure: the URL cannot be sent, or no proper answer came in time.
        """
        try:
            sent = self._protocol.send(h11.Request(method=b"GET", target=target, headers=headers))
        except h11.LocalProtocolError as error:
            raise unreachable(f"cannot be asked for: {error}") from None
        self._protocol.send(h11.EndOfMessage())
        self._writer.write(sent or b"")
        while not isinstance(event := await self._next(), h11.Response):
            if not isinstance(event, h11.InformationalResponse):
                raise may_pass("not an HTTP answer")
        return event

    async def read(self) -> bytes:
        """Some further bytes of the body; b'' at its end.

        Raises:
            Failure: the connection ended before the body did, or nothing came in time.
        """
        event = await self._next()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def _next(self) -> Any:
        try:
            while (event := self._protocol.next_event()) is h11.NEED_DATA:
                async with asyncio.timeout(self._timeout):
                    received = await self._reader.read(_READ_BYTES)
                self._protocol.receive_data(received)
        except TimeoutError:
            raise may_pass(f"timeout: no byte for {self._timeout:g} s") from None
        except h11.RemoteProtocolError as error:
            raise may_pass(f"not a whole HTTP answer: {error}") from None
        except OSError as error:
            raise may_pass(f"connection lost: {error.strerror or error}") from None
        return event


def _origin(url: httpx.URL) -> Origin:
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)
