"""What can go wrong in a lab, by whose fault it is.

    LabError
      MachineLacks     the machine cannot run a lab (not root, no nft ...): the text says what to do
      ScenarioFault    a scenario file is malformed: the text names the file, the path in it and the reason
      LabBusy          another process holds the lab of that name
      NoSuchLab        nothing of that name is running
      CannotDo         the lab was asked for something that it has not (an unknown pod, a node that is gone)
      ProcessEnded     a service, an agent or the bus ended although nobody told it to, or never became ready
      PluginFailed     the CNI plugin answered with an error

A failing expectation is none of these: it is a value, `checks.Verdict`.
"""

from __future__ import annotations


class LabError(Exception):
    """Base; the text is one or two sentences for a person."""


class MachineLacks(LabError):
    pass


class ScenarioFault(LabError):
    pass


class LabBusy(LabError):
    pass


class NoSuchLab(LabError):
    pass


class CannotDo(LabError):
    pass


class ProcessEnded(LabError):
    pass


class PluginFailed(LabError):
    pass
