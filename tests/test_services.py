"""What services need of the environment: keys, proxies and certificates; and addresses. Nothing is sent."""

import os

import pytest

from tillmap.core.errors import ParamsError
from tillmap.core.services import read_key
from tillmap.lookup.http import HttpSource, SearchApi
from tillmap.providers.client import Service


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def provider(url):
    Service(url)


def search(url):
    list(HttpSource(SearchApi(url, "q", "a")).find([]))


CLIENTS = pytest.mark.parametrize("connect", [provider, search])


@pytest.mark.parametrize(("key", "place"), [("sk-één", 4), ("sk-1\nsk-2", 5), ("sk\x01x", 3), (" sk-\udcff ", 4)])
def test_a_key_that_no_header_can_carry_is_told_without_it(monkeypatch, key, place):
    monkeypatch.setitem(os.environ, "OPENAI_API_KEY", key)
    with pytest.raises(ParamsError, match=rf"OPENAI_API_KEY has .* at place {place}; export it again") as told:
        provider("http://127.0.0.1/v1")
    assert key.strip() not in str(told.value)


def test_a_key_may_have_spaces_around_and_within(monkeypatch):
    monkeypatch.setenv("MY_KEY", " Bearer abc \n")
    assert read_key("MY_KEY", "") == "Bearer abc"


@CLIENTS
@pytest.mark.parametrize(
    "url", ["http://[::1", "https://", "http://x:99999", "http://\u0345/v1", "http://x\0", f"http://{'a' * 64}.example"]
)
def test_an_address_that_is_none_is_told_before_anything_is_sent(connect, url):
    with pytest.raises(ParamsError, match=r"(provider.base_url|context.http.url) is no address of HTTP"):
        connect(url)


@CLIENTS
@pytest.mark.parametrize(
    ("name", "value"),
    [("ALL_PROXY", "socks5://x"), ("ALL_PROXY", "http://[::1"), ("ALL_PROXY", "x://y"), ("SSL_CERT_FILE", "no/file")],
)
def test_a_proxy_or_a_certificate_that_cannot_be_used_is_told(connect, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ParamsError, match=r"cannot be asked: proxies or certificates .* unset these .*NO_PROXY"):
        connect("https://a.example/v1")


@CLIENTS
def test_no_part_of_a_password_in_an_address_is_shown(connect, monkeypatch):
    with pytest.raises(ParamsError, match="no address of HTTP") as told:
        connect("http://me:s3cret/word@a.example/v1")
    monkeypatch.setenv("ALL_PROXY", "http://me:s3cret/word@a.example")
    with pytest.raises(ParamsError, match="proxies or certificates") as proxy:
        connect("https://a.example/v1")
    assert "s3cret" not in f"{told.value} {proxy.value}"


@CLIENTS
@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/v1", "http://[::1]:8000/v1", "https://käse.example/v1"])
def test_addresses_of_all_kinds_are_taken(connect, url):
    connect(url)
