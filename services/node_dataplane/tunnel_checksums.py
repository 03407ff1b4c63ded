"""Keeps transmit checksum offload of the VXLAN devices as `checksums` decides, and knows the reason.

Off is enforced, and so is what an operator set. Where nothing speaks against offload, it is left as it is found:
whoever switched it off by hand had a reason.
"""

from __future__ import annotations

import platform

from bus_schemas.node_facts import OffloadFact
from services.node_dataplane import checksums, offload
from services.node_dataplane.checksums import Mode, Trial
from services.node_dataplane.tunnel import TunnelSpec

BY_HAND = "; it is off all the same: somebody switched it off (TORTIE_VXLAN_CHECKSUM_OFFLOAD=on switches it on)"


class TunnelChecksums:
    def __init__(self, mode: Mode) -> None:
        self._mode: Mode = mode
        self._switched_off: set[str] = set()
        """By this life of ours, in `auto`."""
        self.trial: Trial | None = None
        self.facts: dict[str, OffloadFact] = {}
        """By device."""

    def forget(self, device: str) -> None:
        """It is gone."""
        self.facts.pop(device, None)
        self._switched_off.discard(device)

    def settle(self, spec: TunnelSpec) -> bool:
        """Whether something was changed. Raises OSError."""
        decision = checksums.decide(
            self._mode, spec.checksums_broken, platform.release(), offload.drivers(spec.underlay), self.trial
        )
        device, reason = spec.device, decision.reason
        enforced = decision.off or decision.evidence == "set" or device in self._switched_off
        try:
            changed = enforced and offload.switch(device, on=not decision.off)
            on: bool | None = offload.state(device)
        except OSError:
            self._note(spec, None, decision, reason)
            raise
        if decision.off and changed:
            self._switched_off.add(device)
        if not on and not decision.off:
            reason += BY_HAND
        self._note(spec, on, decision, reason)
        return changed

    def _note(self, spec: TunnelSpec, on: bool | None, decision: checksums.Decision, reason: str) -> None:
        self.facts[spec.device] = OffloadFact(
            device=spec.device,
            on=on,
            wanted=not decision.off,
            reason=reason,
            evidence=decision.evidence,
            check=self.trial.text if self.trial is not None else "",
        )

    @property
    def sentence(self) -> str:
        """For health: devices whose checksums the kernel computes, and why; empty when there are none."""
        off = [fact for fact in self.facts.values() if fact.on is False]
        said = (f"{fact.device}: off ({fact.evidence}: {fact.reason})" for fact in off)
        return "; ".join(said)
