"""Which URLs and addresses are fetched from: forms in disguise, special ranges, tunnels."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import FetchError
from handler.addresses import MAX_HOST_CHARS, MAX_URL_CHARS, is_public, parse_url, redirected

REFUSED_URLS = [
    "file:///etc/passwd",
    "FILE://localhost/etc/passwd",
    "ftp://example.org/a.wav",
    "gopher://127.0.0.1:6379/_INFO",
    "data:audio/wav;base64,UklGRg==",
    "javascript:alert(1)",
    "s3://bucket/key",
    "jar:http://example.org/a.jar!/b",
    "//example.org/a.wav",
    "/etc/passwd",
    "example.org/a.wav",
    "",
    "   ",
    "http://",
    "http:///a.wav",
    "https:example.org",
    "http://127.0.0.1/a",
    "http://127.1/a",
    "http://127.0.1/a",
    "http://0x7f000001/a",
    "http://0x7f.0.0.1/a",
    "http://2130706433/a",
    "http://0177.0.0.1/a",
    "http://127.0.0.1./a",
    "http://0/a",
    "http://1.2.3.4.5/a",
    "http://8.8.2056/a",
    "http://１２７.0.0.1/a",
    "http://127。0。0。1/a",
    "http://[::1]/a",
    "http://[::ffff:127.0.0.1]/a",
    "http://[::ffff:a9fe:a9fe]/a",
    "http://[fe80::1%25eth0]/a",
    "http://[v1.x]/a",
    "http://[::1/a",
    "http://169.254.169.254/latest/meta-data/",
    "http://user:password@example.org/a",
    "http://example.org@127.0.0.1/a",
    "http://127.0.0.1\\@example.org/a",
    "http://example.org\r\nHost: 127.0.0.1/a",
    "http://exa\tmple.org/a",
    "http://example.org:22/a",
    "http://example.org:0/a",
    "http://example.org:65536/a",
    "http://example.org:x/a",
    "http://exam ple.org/a",
    "http://example.org%00.evil/a",
    "http://-example.org/a",
    "http://example..org/a",
    "http://straße.example/a",
    "http://example.org／.evil/a",
    "http://example.org/\ud800",
]

PRIVATE_ADDRESSES = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "100.127.255.255"),
    *("127.0.0.1", "127.255.255.255", "168.63.129.16", "169.254.0.1", "169.254.169.254", "172.16.0.1"),
    *("172.31.255.255", "192.0.0.1", "192.0.0.9", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1"),
    *("198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250"),
    *("240.0.0.1", "255.255.255.255", "::", "::1", "::7f00:1", "::8.8.8.8", "::ffff:127.0.0.1"),
    *("::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::a00:1"),
    *("64:ff9b::169.254.169.254", "64:ff9b:1::8.8.8.8", "64:ff9b:1:a9fe:a9:fe00::", "100::1", "2001::1"),
    *("2001:0:7f00:1::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:2::1", "2001:10::1", "2001:20::1"),
    *("2001:db8::1", "2002:7f00:1::", "2002:a9fe:a9fe::", "2002:a00:1::1", "2002:c0a8:1::1", "2002:e000:1::"),
    *("2600::5efe:10.0.0.1", "2600::200:5efe:127.0.0.1", "3fff::1", "4000::1", "5f00::1", "fc00::1"),
    *("fd00:ec2::254", "fe80::1", "fe80::1%eth0", "2606:4700::1111%eth0", "febf::1", "fec0::1", "ff02::1", "ff0e::1"),
]

PUBLIC_ADDRESSES = [
    *("1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "126.255.255.255", "168.63.129.17", "172.15.255.255"),
    *("172.32.0.1", "192.0.1.1", "198.17.255.255", "198.20.0.1", "223.255.255.255", "2606:4700:4700::1111"),
    *("2a00:1450:4001:82a::200e", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1", "2600::5efe:8.8.8.8"),
]


@pytest.mark.parametrize("url", REFUSED_URLS)
def test_url_is_refused(url: str) -> None:
    with pytest.raises(FetchError) as caught:
        parse_url(url)
    message = str(caught.value)
    assert not any(secret in message for secret in ("password", "user:", "meta-data"))
    assert len(message) < 200


def test_corpora_are_large_enough() -> None:
    assert len(set(REFUSED_URLS)) >= 40
    assert len(set(PRIVATE_ADDRESSES)) >= 60


@pytest.mark.parametrize("text", PRIVATE_ADDRESSES)
def test_address_is_not_public(text: str) -> None:
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("text", PUBLIC_ADDRESSES)
def test_address_is_public(text: str) -> None:
    assert is_public(ip_address(text))


@given(st.ip_addresses(v=4))
def test_disguises_of_ipv4_are_no_better_than_the_address(address: object) -> None:
    number = int(ip_address(str(address)))
    for disguise in (0xFFFF << 32 | number, 0x64FF9B << 96 | number, 0x2002 << 112 | number << 80):
        assert is_public(ip_address(disguise.to_bytes(16, "big"))) == is_public(ip_address(number))


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port", "path", "header"),
    [
        ("https://example.org/a.wav", "https", "example.org", 443, "/a.wav", "example.org"),
        (" HTTP://Example.ORG.:80?x=1#part\n", "http", "example.org", 80, "/?x=1", "example.org"),
        ("https://example.org:8443/a b.wav", "https", "example.org", 8443, "/a%20b.wav", "example.org:8443"),
        ("http://example.org:443/ä?q=ö", "http", "example.org", 443, "/%C3%A4?q=%C3%B6", "example.org:443"),
        ("https://h/%2e%2e/x?sig=a%2Fb+c==&t=1", "https", "h", 443, "/%2e%2e/x?sig=a%2Fb+c==&t=1", "h"),
        ("https://bücher.example/a", "https", "xn--bcher-kva.example", 443, "/a", "xn--bcher-kva.example"),
        ("https://my_bucket.example/a", "https", "my_bucket.example", 443, "/a", "my_bucket.example"),
        ("http://8.8.8.8:1024/a", "http", "8.8.8.8", 1024, "/a", "8.8.8.8:1024"),
        ("http://[2606:4700:0::1111]:8080/", "http", "2606:4700::1111", 8080, "/", "[2606:4700::1111]:8080"),
        ("https://localhost./a", "https", "localhost", 443, "/a", "localhost"),
    ],
)
def test_url_is_taken_apart(url: str, scheme: str, host: str, port: int, path: str, header: str) -> None:
    target = parse_url(url)
    assert (target.scheme, target.host, target.port, target.path) == (scheme, host, port, path)
    assert target.host_header == header
    assert path not in repr(target) or path == "/"


def test_limits_of_a_url() -> None:
    start = "https://example.org/"
    assert parse_url(start + "a" * (MAX_URL_CHARS - len(start))).host == "example.org"
    with pytest.raises(FetchError, match=f"{MAX_URL_CHARS + 1} characters; legal: 1 to {MAX_URL_CHARS}"):
        parse_url(start + "a" * (MAX_URL_CHARS + 1 - len(start)))
    label = "a" * 63
    name = f"{label}.{label}.{label}.{label[:61]}"
    assert len(name) == MAX_HOST_CHARS
    assert parse_url(f"https://{name}/").shown == name[:77] + "..."
    for long in (name + "a", label + "a"):
        with pytest.raises(FetchError, match="no host name"):
            parse_url(f"https://{long}/")
    with pytest.raises(FetchError, match="no host name"):
        parse_url(f"https://{'ü' * (MAX_HOST_CHARS + 1)}/")
    assert parse_url("http://example.org:1024/").port == 1024
    with pytest.raises(FetchError, match="port 1023 is not allowed; legal: 80, 443, 1024 to 65535"):
        parse_url("http://example.org:1023/")


def test_private_addresses_can_be_allowed_but_no_disguises() -> None:
    assert parse_url("http://127.0.0.1/a", allow_private=True).host == "127.0.0.1"
    for url in ("http://127.1/a", "http://0x7f000001/", "file:///etc/passwd", "http://u@127.0.0.1/"):
        with pytest.raises(FetchError):
            parse_url(url, allow_private=True)


@pytest.mark.parametrize(
    ("location", "found"),
    [
        ("/b", "https://example.org:8443/b"),
        ("b?c", "https://example.org:8443/x/b?c"),
        ("//other.example/b", "https://other.example/b"),
        ("https://other.example:444/b", None),
        ("http://other.example/b", None),
        ("http://127.0.0.1/b", None),
        ("//169.254.169.254/b", None),
        ("https://user@other.example/", None),
        ("file:///etc/passwd", None),
        ("//[::1", None),
        ("/b\r\nHost: x", None),
        ("/" + "a" * MAX_URL_CHARS, None),
    ],
)
def test_redirects(location: str, found: str | None) -> None:
    target = parse_url("https://example.org:8443/x/a?signature=secret")
    if found is None:
        with pytest.raises(FetchError) as caught:
            redirected(target, location)
        assert "secret" not in str(caught.value)
    else:
        assert redirected(target, location) == parse_url(found)


def test_redirect_to_plain_http_can_be_allowed() -> None:
    target = parse_url("https://example.org/a")
    with pytest.raises(FetchError, match="from https to http"):
        redirected(target, "http://example.org/a")
    assert redirected(target, "http://10.0.0.1/a", allow_private=True).scheme == "http"


@given(st.text(max_size=80))
def test_any_text_is_a_target_or_a_fetch_error(text: str) -> None:
    for url in (text, "http://" + text, "http://example.org/" + text):
        try:
            target = parse_url(url)
        except FetchError:
            continue
        assert target.host.isascii()
        assert target.path.isascii()
        assert target.path.startswith("/")
        assert not set(target.path + target.host) & set(" \r\n\t\0")
