"""`gatepost.yaml` as one model. Each service reads its part."""

from __future__ import annotations

from services.common.config.delivery import Delivery, Mailbox
from services.common.config.keys import Keys
from services.common.config.policy import Policy
from services.common.config.recipients import Domains, Recipients
from services.common.config.smtp import Smtp
from services.common.config.submission import Submission
from services.common.config.system import Auth, Dns, Log, Nats, Services
from services.common.config.types import Section


class Config(Section):
    """The whole configuration."""

    smtp: Smtp = Smtp()
    submission: Submission = Submission()
    domains: Domains = Domains()
    recipients: Recipients = Recipients()
    policy: Policy = Policy()
    delivery: Delivery = Delivery()
    mailbox: Mailbox = Mailbox()
    keys: Keys = Keys()
    nats: Nats = Nats()
    dns: Dns = Dns()
    services: Services = Services()
    auth: Auth = Auth()
    log: Log = Log()
