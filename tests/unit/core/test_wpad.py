"""Which hosts may be asked for the proxies of a network, and that none of them is somebody else's (I16)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbits.core.wpad import MOST_DOMAINS, domains_of, hosts_to_ask, may_ask_in, search_list


@pytest.mark.parametrize(
    ("fqdn", "search", "hosts"),
    [
        ("pc.sales.example.com", (), ("wpad.sales.example.com.",)),
        ("pc", (), ()),
        ("pc", ("example.com",), ("wpad.example.com.",)),
        ("pc.example.com.", ("EXAMPLE.com.", "lab.example.com"), ("wpad.example.com.", "wpad.lab.example.com.")),
        ("pc.com", ("com", "lan", ".", ""), ()),
        ("pc.co.uk", ("com.au", "example.co.uk"), ("wpad.example.co.uk.",)),
    ],
)
def test_wpad_is_asked_for_in_ones_own_domains_and_in_none_above(
    fqdn: str, search: tuple[str, ...], hosts: tuple[str, ...]
) -> None:
    assert hosts_to_ask(fqdn, search) == hosts


@pytest.mark.parametrize(
    "domain",
    ["com", "uk", "co.uk", "com.au", "10.0.0.1", "a..b", "exa mple.com", "ex/ample.com", "-a.com", "a.b" * 90, ""],
)
def test_places_where_nobody_may_be_asked(domain: str) -> None:
    assert not may_ask_in(domain)


_LABELS = st.sampled_from(["a", "b1", "example", "com", "co", "uk", "corp", ""])
_DOMAINS = st.lists(_LABELS, max_size=5).map(".".join)


@given(_DOMAINS, st.lists(_DOMAINS, max_size=9))
def test_no_name_is_ever_asked_for_that_is_not_directly_in_a_domain_of_the_machine(
    fqdn: str, search: list[str]
) -> None:
    own = {domain.removesuffix(".") for domain in (fqdn.removesuffix(".").partition(".")[2], *search)}
    asked = hosts_to_ask(fqdn, search)
    assert len(asked) == len(set(asked)) <= MOST_DOMAINS
    for host in asked:
        assert host.endswith(".")
        domain = host.removeprefix("wpad.").removesuffix(".")
        assert domain in own
        assert domain.count(".") >= 1
    assert domains_of(fqdn, search) == tuple(host[5:-1] for host in asked)


def test_the_search_list_of_a_resolver() -> None:
    assert search_list("nameserver 10.0.0.1\nsearch a.example b.example\n# search c.example\n") == (
        "a.example",
        "b.example",
    )
    assert search_list("search a.example\ndomain b.example ignored\n") == ("b.example",)
    assert search_list("domain\noptions ndots:5\n") == ()
    assert search_list("") == ()
