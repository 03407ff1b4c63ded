"""Faults of the nftables driver.

NftError                the kernel or libnftables refused a transaction, or could not be asked
  NftUnavailable        there is no libnftables on this machine, or no right to use it
"""

from __future__ import annotations


class NftError(Exception):
    """The text is one sentence with the reason that the kernel or libnftables gave."""


class NftUnavailable(NftError):
    """The text says what to install or do."""
