"""The account's fixtures."""

from tests.support.account import account, account_objects

__all__ = ["account", "account_objects"]
