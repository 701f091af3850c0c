"""The record that asks for reports on encryption: who is told."""

import pytest

from services.delivery.tls.tls_report_record import WebPlace, endpoints_in


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["v=TLSRPTv1; rua=mailto:tls@dest.test"], ["tls@dest.test"]),
        (["v=TLSRPTv1;rua=mailto:tls@dest.test;"], ["tls@dest.test"]),
        (["v=TLSRPTv1 ;\trua=MAILTO:a@x.test , mailto:b@y.test; new=1"], ["a@x.test", "b@y.test"]),
        (["v=TLSRPTv1; rua=https://X.test/r?a=b,mailto:a@x.test"], ["x.test /r?a=b", "a@x.test"]),
        (["v=TLSRPTv1; rua=https://x.test:443"], ["x.test /"]),
        (["v=TLSRPTv1; rua=https://x.test:8443/"], []),
        (["v=TLSRPTv1; rua=https://me@x.test/"], []),
        (["v=TLSRPTv1; rua=https://127.0.0.1:99999/"], []),
        (["v=TLSRPTv1; rua=https://[::1/"], []),
        (["v=TLSRPTv1; rua=https:///path"], []),
        (["v=TLSRPTv1; rua=http://x.test/,ftp://x.test/"], []),
        (["v=TLSRPTv1; rua=mailto:a%2Bb@x.test"], ["a+b@x.test"]),
        (["v=TLSRPTv1; rua=mailto:a@x.test,mailto:a@x.test"], ["a@x.test"]),
        (["other", "v=TLSRPTv1; rua=mailto:a@x.test"], ["a@x.test"]),
        (
            ["v=TLSRPTv1; rua=" + ",".join(f"mailto:{n}@x.test" for n in range(9))],
            [f"{n}@x.test" for n in range(3)],
        ),
        (["v=TLSRPTv1; rua=mailto:a@x.test", "v=TLSRPTv1; rua=mailto:b@x.test"], []),
        (["v=TLSRPTv2; rua=mailto:a@x.test"], []),
        (["v=TLSRPTv1; rua="], []),
        (["v=TLSRPTv1"], []),
        (["v=TLSRPTv1; rua=mailto:postmaster"], []),
        (["v=TLSRPTv1; rua=mailto:a@x.test?subject=b"], []),
        (["v=TLSRPTv1; rua=mailto:a%0d%0a@x.test"], []),
        (["v=TLSRPTv1; rua=mailto:%ff@x.test"], []),
        ([" v=TLSRPTv1; rua=mailto:a@x.test"], []),
        ([], []),
    ],
)
def test_who_asks_for_reports(texts: list[str], told: list[str]) -> None:
    found = endpoints_in([text.encode() for text in texts])
    shown = [f"{e.host} {e.path}" if isinstance(e, WebPlace) else str(e) for e in found]
    assert shown == told
