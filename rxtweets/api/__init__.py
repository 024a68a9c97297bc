"""X's API over HTTP: connections, answers, the token, endpoints, fields and rules.

`Rules` and `Connections` are for programs; the private files serve `rxtweets.streams`.
May import: `rxtweets._core` and below.
"""

from rxtweets.api._connections import Connections, HeldConnection
from rxtweets.api._endpoints import UnknownNameWarning
from rxtweets.api._options import ServerOptions
from rxtweets.api._rule_syntax import RuleWarning
from rxtweets.api._rules import Rule, RuleCounts, RuleRefusal, Rules, RulesReport

__all__ = [
    "Connections",
    "HeldConnection",
    "Rule",
    "RuleCounts",
    "RuleRefusal",
    "RuleWarning",
    "Rules",
    "RulesReport",
    "ServerOptions",
    "UnknownNameWarning",
]
