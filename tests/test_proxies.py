"""Which proxy an address is asked by is read as curl and Go read the environment."""

import pytest

from shifter_lite.build.wire.proxies import proxy_for
from shifter_lite.build.wire.url import Url


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http", "https", "no", "all"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name.upper()}_PROXY", raising=False)
    monkeypatch.setenv("https_proxy", "http://proxy.org:3128")
    monkeypatch.setenv("HTTP_PROXY", "http://plain.org:3128")


@pytest.mark.parametrize(
    ("no_proxy", "url", "direct"),
    [
        ("example.test", "https://example.test/", True),
        ("example.test", "https://a.b.example.test/", True),
        ("example.test", "https://badexample.test/", False),
        (".example.test", "https://a.example.test/", True),
        (".example.test", "https://example.test/", True),
        ("*.example.test", "https://a.example.test/", True),
        ("*.example.test", "https://example.test/", True),
        ("*.example.test", "https://badexample.test/", False),
        ("Example.TEST", "https://EXAMPLE.test/", True),
        ("example.test.", "https://example.test/", True),
        ("example.test:5000", "https://example.test:5000/", True),
        ("example.test:5000", "https://example.test:5001/", False),
        ("example.test:443", "https://a.example.test/", True),
        ("example.test:80", "http://example.test/", True),
        ("example.test:80", "https://example.test/", False),
        ("*", "https://example.test/", True),
        ("a.test,*", "https://example.test/", True),
        ("*", "https://10.0.0.1/", True),
        ("a.test, example.test", "https://example.test/", True),
        ("a.test example.test", "https://example.test/", True),
        (" ,, ", "https://example.test/", False),
        ("10.1.2.3", "https://10.1.2.3/", True),
        ("10.1.2.3", "https://10.1.2.30/", False),
        ("10.1.2.3:5000", "https://10.1.2.3:5000/", True),
        ("10.1.2.3:05000", "https://10.1.2.3:5000/", True),
        ("10.1.2.3:5000", "https://10.1.2.3/", False),
        ("10.0.0.0/8", "https://10.1.2.3:5000/", True),
        ("10.0.0.1/8", "https://10.1.2.3:5000/", True),
        ("10.0.0.0/8", "https://11.1.2.3/", False),
        ("10.0.0.0/99", "https://10.1.2.3/", False),
        ("10.0.0.0/8", "https://a10.test/", False),
        ("2001:db8::1", "https://[2001:db8::1]/", True),
        ("[2001:db8::1]", "https://[2001:DB8:0::1]:5000/", True),
        ("[2001:db8::1]:5000", "https://[2001:db8::1]:5000/", True),
        ("[2001:db8::1]:5000", "https://[2001:db8::1]/", False),
        ("2001:db8::/32", "https://[2001:db8::1]/", True),
        ("::ffff:10.1.2.3", "https://10.1.2.3/", True),
        ("2.3", "https://10.1.2.3/", False),
        (":5000", "https://example.test:5000/", False),
        ("*example.test", "https://badexample.test/", False),
        ("example.test", "https://example.test.evil.org/", False),
    ],
)
@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_no_proxy_names_hosts_addresses_networks_and_ports(
    monkeypatch: pytest.MonkeyPatch, name: str, no_proxy: str, url: str, direct: bool
) -> None:
    monkeypatch.setenv(name, no_proxy)
    assert (proxy_for(Url.parse(url)) == "") is direct


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:5000", "127.0.0.1", "127.1.2.3", "[::1]"])
def test_this_host_is_not_behind_a_proxy(host: str) -> None:
    assert proxy_for(Url.parse(f"https://{host}/")) == ""


def test_each_scheme_has_its_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proxy_for(Url.parse("https://a.test/")) == "http://proxy.org:3128"
    assert proxy_for(Url.parse("http://a.test/")) == "http://plain.org:3128"
    monkeypatch.delenv("https_proxy")
    assert proxy_for(Url.parse("https://a.test/")) == ""
    monkeypatch.setenv("ALL_PROXY", "http://all.org")
    assert proxy_for(Url.parse("https://a.test/")) == "http://all.org"


def test_a_server_is_another_one_without_tls() -> None:
    with_tls, without = Url.parse("https://a.test:5000/x"), Url.parse("http://a.test:5000/x")
    assert without.is_same_server(with_tls)
    assert not with_tls.is_same_server(without)
    assert Url.parse("http://a.test/").is_same_server(Url.parse("https://A.test./"))
