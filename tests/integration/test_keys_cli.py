"""`gatepost keys` and `gatepost dns`, as people and scripts use them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gatepost.keys.v1 import keys_pb2 as pb
from services.common.rpc.auth import Role
from services.common.rpc.tokens import token_file
from services.keys.key import KeyType
from services.keys.private_key import generate
from tests.support.dns_server import DnsServer
from tests.support.keys_domain import KeysDomain, refusal
from tests.support.keys_process import KeysProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

REPOSITORY = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def dns_server() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


@pytest.fixture(scope="module")
def process(
    tmp_path_factory: pytest.TempPathFactory, dns_server: DnsServer
) -> Iterator[KeysProcess]:
    servers = [dns_server.address]
    config = {
        "keys": {"publication_servers": servers},
        "dns": {"servers": servers},
        "domains": {"local": ["local.test"]},
        "delivery": {"dkim": {"enabled": True}},
    }
    process = KeysProcess(tmp_path_factory.mktemp("keys"), config)
    process.start()
    yield process
    process.close()


@pytest.fixture
def domain(process: KeysProcess, dns_server: DnsServer) -> KeysDomain:
    return KeysDomain(process, [dns_server])


@pytest.fixture
def gatepost(process: KeysProcess) -> Run:
    def run(
        *arguments: str, stdin: str = "", role: Role = Role.OPERATOR
    ) -> subprocess.CompletedProcess[str]:
        place = ["--server", f"127.0.0.1:{process.rpc_port}"]
        token = ["--token-file", str(token_file(process.tokens, role))]
        return subprocess.run(
            [sys.executable, "-m", "services.cli.main", *arguments, *place, *token],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_the_life_of_a_key(gatepost: Run, domain: KeysDomain, tmp_path: Path) -> None:
    zone = tmp_path / "zone"
    made = gatepost("keys", "create", domain.name, "--expiry", "365d", "--output", str(zone))
    assert made.returncode == 0, made.stderr
    [key] = domain.all_keys()
    assert key.dns_record.name in made.stdout
    assert key.dns_record.value in made.stdout
    assert zone.read_text() == key.dns_record.zone_file + "\n"
    assert key.expire_time.seconds - key.create_time.seconds == 365 * 86400
    early = gatepost("keys", "activate", domain.name, key.selector)
    assert early.returncode == 1
    assert "not visible everywhere" in early.stderr
    domain.publish(key)
    shown = gatepost("keys", "show", domain.name, key.selector)
    assert "published everywhere" in shown.stdout
    assert gatepost("keys", "activate", domain.name, key.selector).returncode == 0
    listed = json.loads(gatepost("keys", "list", "--domain", domain.name, "--json").stdout)
    assert [each["state"] for each in listed] == ["KEY_STATE_ACTIVE"]
    last = gatepost("keys", "retire", domain.name, key.selector)
    assert last.returncode == 1
    assert "no other key signs" in last.stderr
    assert "or say --leave-unsigned to" in last.stderr
    forced = gatepost("keys", "retire", domain.name, key.selector, "--leave-unsigned")
    assert "is retiring" in forced.stdout
    assert gatepost("keys", "delete", domain.name, key.selector).returncode == 1


def test_a_key_that_was_never_used_is_deleted(gatepost: Run, domain: KeysDomain) -> None:
    domain.create(selector="s1")
    assert gatepost("keys", "delete", domain.name, "s1").returncode == 0
    assert gatepost("keys", "show", domain.name, "s1").returncode == 4
    assert gatepost("keys", "delete", domain.name, "s1").returncode == 4


@pytest.mark.parametrize("how", ["file", "standard input"])
def test_a_key_made_elsewhere(gatepost: Run, domain: KeysDomain, tmp_path: Path, how: str) -> None:
    private = generate(KeyType.RSA, bits=1024)
    file = tmp_path / "key.pem"
    file.write_bytes(private.pem())
    place = str(file) if how == "file" else "-"
    stdin = private.pem().decode()
    imported = gatepost("keys", "import", domain.name, "old", place, stdin=stdin)
    assert imported.returncode == 0, imported.stderr
    assert f"p={private.public}" in imported.stdout
    assert "PRIVATE" not in imported.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["import", "DOMAIN", "s"], 2, "a PEM file or a --secret"),
        (["import", "DOMAIN", "s", "missing.pem"], 2, "missing.pem: cannot be read"),
        (["import", "DOMAIN", "s", "--secret", "x"], 2, "kept in files"),
        (["create", "DOMAIN", "--expiry", "soon"], 2, "--expiry"),
        (["create", "DOMAIN", "--type", "dsa"], 2, "gatepost: --type is rsa or ed25519"),
        (["import", "DOMAIN", "s", __file__], 2, "test_keys_cli.py: this is not a private key"),
        (["import", "DOMAIN", "s", "-"], 2, "gatepost: standard input: is empty"),
        (["create", "DOMAIN", "--bits", "512"], 2, "1024 to 4096"),
        (["create", "no domain"], 2, "domain"),
        (["show", "DOMAIN", "nothing"], 4, "no key"),
    ],
)
def test_mistakes_are_one_line_and_a_code(
    gatepost: Run, domain: KeysDomain, arguments: list[str], code: int, why: str
) -> None:
    done = gatepost("keys", *(domain.name if a == "DOMAIN" else a for a in arguments))
    assert done.returncode == code
    assert why in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_viewer_cannot_change_anything(gatepost: Run, domain: KeysDomain) -> None:
    assert gatepost("keys", "list", role=Role.VIEWER).returncode == 0
    assert gatepost("keys", "create", domain.name, role=Role.VIEWER).returncode == 5
    assert domain.all_keys() == []


@pytest.mark.parametrize("has_folder", [False, True], ids=["no folder", "no token in it"])
def test_without_a_token_one_is_told_where_it_was_looked_for(
    process: KeysProcess, tmp_path: Path, has_folder: bool
) -> None:
    folder = tmp_path / "data"
    missing = folder / "tokens" / "operator.token" if has_folder else folder
    if has_folder:
        folder.mkdir()
    server = ["--server", f"127.0.0.1:{process.rpc_port}"]
    done = subprocess.run(
        [sys.executable, "-m", "services.cli.main", "keys", "list", *server],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 5
    [line] = done.stderr.splitlines()
    assert f"needs a token, and {missing} does not exist" in line
    assert "--data" in line
    assert "--token-file" in line


def test_the_records_of_a_domain(
    gatepost: Run, domain: KeysDomain, dns_server: DnsServer, tmp_path: Path
) -> None:
    key = domain.create()
    name = f"_dmarc.{domain.name}"
    dns_server.records[name, "TXT"] = ["v=DMARC1; p=reject"]
    zone = tmp_path / "zone"
    done = gatepost("dns", domain.name, "--output", str(zone), "--check")
    assert done.returncode == 10
    assert f"missing  TXT  {key.dns_record.name}" in done.stdout
    assert key.dns_record.zone_file in done.stdout
    assert f"ok       TXT  {name}" in done.stdout
    assert "1 of 3 records are there" in done.stdout
    assert key.dns_record.zone_file in zone.read_text()
    assert "DMARC" not in zone.read_text()
    dns_server.records[domain.name, "TXT"] = ["v=spf1 ip4:198.51.100.1 -all"]
    done = gatepost("dns", domain.name, "--output", str(zone))
    assert "   is now v=spf1 ip4:198.51.100.1 -all\n  instead v=spf1 a:" in done.stdout
    assert "; instead of: v=spf1 ip4:198.51.100.1 -all\n" in zone.read_text()
    answer = json.loads(gatepost("dns", domain.name, "--json").stdout)
    for each in answer["records"]:
        if not each["satisfied"]:
            record = each["record"]
            dns_server.records[record["name"], record["type"]] = [record["value"]]
    done = gatepost("dns", domain.name, "--check")
    assert done.returncode == 0
    assert "all 3 records are there" in done.stdout


def test_the_records_of_a_domain_that_nothing_is_about(gatepost: Run, domain: KeysDomain) -> None:
    domain.create()
    done = gatepost("dns", "mistyped.test")
    assert done.returncode == 0
    assert "TXT  mistyped.test" in done.stdout
    [line] = done.stderr.splitlines()
    assert "note: mistyped.test is not in domains.local, domains.relay" in line
    assert "or make a key for it" in line
    assert "local.test" in line.partition("known are ")[2]
    told = gatepost("dns", "mistyped.test", "--json")
    assert json.loads(told.stdout)["notes"] == [line.removeprefix("note: ")]
    # One of the configuration needs no key.
    assert not gatepost("dns", "local.test").stderr


def test_the_status_names_domains_without_an_active_key(gatepost: Run, domain: KeysDomain) -> None:
    key = domain.active()
    pending = KeysDomain(domain.process)
    pending.create()
    shown = gatepost("keys", "status")
    assert shown.returncode == 0, shown.stderr
    rows = {line.split()[0]: line.split()[1:] for line in shown.stdout.splitlines()}
    assert rows[domain.name] == ["signed", key.selector]
    assert "local.test: there is no key: mail goes out unsigned" in shown.stdout
    assert f"{pending.name}: no key is active: mail goes out unsigned" in shown.stdout
    assert gatepost("keys", "status", "--check").returncode == 10
    values = json.loads(gatepost("keys", "status", "--json").stdout)
    assert values["signing_enabled"] is True
    [local] = [each for each in values["domains"] if each["local"]]
    assert (local["domain"], local["signing"]) == ("local.test", "DOMAIN_SIGNING_UNSIGNED")
    assert domain.process.sample("gatepost_keys_unsigned_local_domains") == 1


def test_a_page_of_domains_goes_on_after_the_last(domain: KeysDomain) -> None:
    domain.active()
    names: list[str] = []
    token = ""
    while True:
        request = pb.ListDomainsRequest(page_size=1, page_token=token)
        page = domain.call("ListDomains", request)
        names += [each.domain for each in page.domains]
        token = page.next_page_token
        if not token:
            break
    assert names == sorted(names)
    assert {"local.test", domain.name} <= set(names)


@pytest.mark.parametrize("token", ["%%%", "\xfc", "YQ", "/w=="])
def test_a_token_of_somebody_else_is_refused(domain: KeysDomain, token: str) -> None:
    request = pb.ListDomainsRequest(page_token=token)
    assert refusal(lambda: domain.call("ListDomains", request))[1] == "INVALID_PAGE_TOKEN"


def test_config_check_names_the_local_domains_without_a_key(
    gatepost: Run, domain: KeysDomain, tmp_path: Path
) -> None:
    domain.active()
    file = tmp_path / "gatepost.yaml"
    file.write_text(
        f"domains: {{local: [new.test, {domain.name}]}}\ndelivery: {{dkim: {{enabled: true}}}}\n"
    )
    checked = gatepost("config", "check", str(file))
    assert checked.returncode == 0, checked.stderr
    assert "valid" in checked.stdout
    assert "note: delivery.dkim.enabled: new.test has no active key" in checked.stdout
    assert domain.name not in checked.stdout


def test_config_check_without_a_service_says_how_to_ask_one(tmp_path: Path) -> None:
    file = tmp_path / "gatepost.yaml"
    file.write_text("delivery: {dkim: {enabled: true}}\n")

    def check(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "services.cli.main", "config", "check", str(file)]
        return subprocess.run(
            [*command, *arguments], capture_output=True, text=True, timeout=60, check=False
        )

    alone = check()
    assert alone.returncode == 0
    assert "give --server" in alone.stdout
    (tmp_path / "endpoints.json").write_text('{"keys": "127.0.0.1:1"}')
    down = check("--data", str(tmp_path))
    assert down.returncode == 0
    assert "nobody knows which local domains have keys: 127.0.0.1:1 does not" in down.stdout
    assert check("--server", "127.0.0.1:1").returncode == 3
    file.write_text("delivery: {dkim: {enabled: false}}\n")
    assert "note" not in check().stdout
